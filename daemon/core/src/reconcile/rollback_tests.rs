//! Named scenarios of gates, stability, pauses and the way back.
