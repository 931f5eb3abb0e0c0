//! Times are those of public calendars: daylight saving of New York and Berlin in 2026, Lord Howe's half hour.

use super::*;

fn window(days: &[Weekday], start: &str, end: &str, zone: &str) -> MaintenanceWindow {
    MaintenanceWindow {
        days: days.to_vec(),
        start: start.into(),
        end: end.into(),
        time_zone: zone.into(),
    }
}

fn at(windows: &[MaintenanceWindow], now: &str) -> Gate {
    let policy = Policy {
        windows: windows.to_vec(),
        ..Policy::default()
    };
    open(&policy, time(now), true)
}

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

#[track_caller]
fn assert_open(gate: &Gate, until: &str) {
    assert_eq!(
        *gate,
        Gate::Open {
            until: Some(time(until))
        }
    );
}

#[track_caller]
fn assert_closed(gate: &Gate, opens: &str) {
    let Gate::Closed { until, problem } = gate else {
        panic!("{gate:?}");
    };
    assert_eq!(*until, Some(time(opens)));
    assert_eq!(problem.code, codes::OUTSIDE_WINDOW);
}

#[test]
fn without_a_window_changes_may_begin_at_any_time() {
    assert_eq!(at(&[], "2026-11-21T08:00:00Z"), Gate::Open { until: None });
}

#[test]
fn a_window_is_open_from_its_start_and_closed_at_its_end() {
    let night = [window(&[], "02:00", "04:30", "Asia/Shanghai")];
    assert_closed(&at(&night, "2026-11-20T17:59:59Z"), "2026-11-20T18:00:00Z");
    assert_open(&at(&night, "2026-11-20T18:00:00Z"), "2026-11-20T20:30:00Z");
    assert_open(&at(&night, "2026-11-20T20:29:59Z"), "2026-11-20T20:30:00Z");
    assert_closed(&at(&night, "2026-11-20T20:30:00Z"), "2026-11-21T18:00:00Z");
}

#[test]
fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
    let night = [window(&[Weekday::Fri], "22:00", "04:00", "UTC")];
    // 2026-11-20 is a Friday.
    assert_closed(&at(&night, "2026-11-20T03:00:00Z"), "2026-11-20T22:00:00Z");
    assert_open(&at(&night, "2026-11-20T23:00:00Z"), "2026-11-21T04:00:00Z");
    assert_open(&at(&night, "2026-11-21T03:59:00Z"), "2026-11-21T04:00:00Z");
    assert_closed(&at(&night, "2026-11-21T22:30:00Z"), "2026-11-27T22:00:00Z");
}

#[test]
fn equal_times_are_a_whole_day() {
    let sunday = [window(&[Weekday::Sun], "00:00", "00:00", "UTC")];
    assert_open(&at(&sunday, "2026-11-22T12:00:00Z"), "2026-11-23T00:00:00Z");
    assert_closed(&at(&sunday, "2026-11-21T23:59:59Z"), "2026-11-22T00:00:00Z");
}

#[test]
fn windows_that_touch_are_one() {
    let both = [
        window(&[], "01:00", "02:00", "UTC"),
        window(&[], "02:00", "03:00", "UTC"),
        window(&[], "02:30", "02:45", "UTC"),
    ];
    assert_open(&at(&both, "2026-11-21T01:30:00Z"), "2026-11-21T03:00:00Z");
}

#[test]
fn the_nearest_of_several_windows_is_waited_for() {
    let both = [
        window(&[Weekday::Wed], "01:00", "02:00", "UTC"),
        window(&[Weekday::Mon], "01:00", "02:00", "America/New_York"),
    ];
    assert_closed(&at(&both, "2026-11-21T12:00:00Z"), "2026-11-23T06:00:00Z");
}

#[test]
fn a_start_that_a_day_does_not_have_comes_as_far_after_the_gap() {
    // On 2026-03-08 New York goes from 02:00 to 03:00: 02:30 is 03:30, 07:30 in UTC.
    let night = [window(&[], "02:30", "05:00", "America/New_York")];
    assert_closed(&at(&night, "2026-03-08T07:15:00Z"), "2026-03-08T07:30:00Z");
    assert_open(&at(&night, "2026-03-08T07:30:00Z"), "2026-03-08T09:00:00Z");
    // On 2026-03-29 Berlin does the same at 01:00 in UTC. A window within the gap keeps its length.
    let within = [window(&[], "02:10", "02:50", "Europe/Berlin")];
    assert_open(&at(&within, "2026-03-29T01:20:00Z"), "2026-03-29T01:50:00Z");
}

#[test]
fn a_time_that_a_day_has_twice_is_the_first_of_both() {
    // On 2026-11-01 New York goes from 02:00 back to 01:00: 01:30 is 05:30 and 06:30 in UTC.
    let night = [window(&[], "01:30", "04:00", "America/New_York")];
    assert_open(&at(&night, "2026-11-01T05:30:00Z"), "2026-11-01T09:00:00Z");
    let ends_twice = [window(&[], "00:00", "01:30", "America/New_York")];
    assert_closed(&at(&ends_twice, "2026-11-01T06:00:00Z"), "2026-11-02T05:00:00Z");
}

#[test]
fn a_window_over_a_change_of_clocks_lasts_by_the_wall_clock() {
    // 22:00 to 04:00 in the night to 2026-10-25 in Berlin are seven hours.
    let night = [window(&[], "22:00", "04:00", "Europe/Berlin")];
    assert_open(&at(&night, "2026-10-24T20:00:00Z"), "2026-10-25T03:00:00Z");
    // Lord Howe Island changes by half an hour, on 2026-04-05 at 02:00 back to 01:30.
    let island = [window(&[], "01:00", "03:00", "Australia/Lord_Howe")];
    assert_open(&at(&island, "2026-04-04T14:00:00Z"), "2026-04-04T16:30:00Z");
}

#[test]
fn without_a_trusted_clock_windows_are_closed_unless_the_document_says_otherwise() {
    let mut policy = Policy {
        windows: vec![window(&[], "00:00", "00:00", "UTC")],
        ..Policy::default()
    };
    let now = time("1970-01-01T00:10:00Z");
    let Gate::Closed { until: None, problem } = open(&policy, now, false) else {
        panic!("open with a clock that cannot be trusted");
    };
    assert_eq!(problem.code, codes::WINDOW_WITHOUT_CLOCK);
    policy.windows_without_clock = true;
    assert_eq!(open(&policy, now, false), Gate::Open { until: None });
}

#[test]
fn an_urgent_document_waits_for_nothing() {
    let mut policy = Policy {
        windows: vec![window(&[Weekday::Mon], "01:00", "01:01", "UTC")],
        urgent: true,
        ..Policy::default()
    };
    let now = time("2026-11-21T12:00:00Z");
    assert_eq!(open(&policy, now, false), Gate::Open { until: None });
    policy.urgent = false;
    assert_closed(&open(&policy, now, true), "2026-11-23T01:00:00Z");
}

#[test]
fn a_window_that_cannot_be_read_never_opens_and_is_named() {
    for bad in [
        window(&[], "24:00", "01:00", "UTC"),
        window(&[], "1:00", "02:00", "UTC"),
        window(&[], "01:60", "02:00", "UTC"),
        window(&[], "+1:00", "02:00", "UTC"),
        window(&[], "00:00", "00:00", "Mars/Olympus"),
    ] {
        let Gate::Closed { until: None, problem } = at(std::slice::from_ref(&bad), "2026-11-21T12:00:00Z")
        else {
            panic!("{bad:?} opens");
        };
        assert_eq!(problem.code, codes::WINDOW_INVALID);
        // Another one beside it still counts.
        let good = window(&[], "11:00", "13:00", "UTC");
        assert_open(&at(&[bad, good], "2026-11-21T12:00:00Z"), "2026-11-21T13:00:00Z");
    }
}
