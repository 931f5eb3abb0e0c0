//! Pure decisions of the Holdfast node: admission, planning, reconcile state machine, readiness.
