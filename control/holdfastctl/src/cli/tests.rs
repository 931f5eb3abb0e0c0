//! What the command line takes and refuses.

use super::*;

#[test]
fn the_command_line_is_consistent() {
    command().debug_assert();
}

#[test]
fn wait_takes_a_time_or_none() {
    let wait = |arguments: &[&str]| {
        let all = ["holdfastctl", "release", "assign", "r", "--node", "n"]
            .iter()
            .chain(arguments);
        match Cli::try_parse_from(all).unwrap().command {
            Command::Release(ReleaseCommand::Assign { wait, .. }) => wait,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(wait(&[]), None);
    assert_eq!(wait(&["--wait"]), Some(Duration::from_secs(600)));
    assert_eq!(wait(&["--wait=90s"]), Some(Duration::from_secs(90)));
}

#[test]
fn an_assignment_without_nodes_is_refused() {
    assert!(Cli::try_parse_from(["holdfastctl", "release", "assign", "r"]).is_err());
}

#[test]
fn the_whole_fleet_is_meant_only_where_it_is_said() {
    let assign = |arguments: &[&str]| {
        let all = ["holdfastctl", "release", "assign", "r"].iter().chain(arguments);
        Cli::try_parse_from(all)
    };
    assert!(assign(&["--all"]).is_ok());
    assert!(assign(&["--selector", "site=berlin"]).is_ok());
    for unset in ["", " ", ",", " , "] {
        assert!(assign(&["--selector", unset]).is_err(), "{unset:?}");
    }
    assert!(assign(&["--all", "--node", "box-1"]).is_err());
}

#[test]
fn durations_have_a_unit_and_a_limit() {
    assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
    for bad in [
        "",
        "7",
        "d",
        "7w",
        "-1s",
        "0s",
        "367d",
        "99999999999999999999d",
        "1.5h",
    ] {
        assert!(duration(bad).is_err(), "{bad}");
    }
}

#[test]
fn labels_are_set_and_removed() {
    assert_eq!(
        label_change("site=berlin"),
        Ok(("site".into(), Some("berlin".into())))
    );
    assert_eq!(label_change("site="), Ok(("site".into(), Some(String::new()))));
    assert_eq!(label_change("site-"), Ok(("site".into(), None)));
    for bad in ["site", "-", "=x", ""] {
        assert!(label_change(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_mistake_is_a_problem_where_json_is_asked_for() {
    let typed = |text: &str| -> Vec<OsString> { text.split(' ').map(OsString::from).collect() };
    let told = |text: &str| {
        let arguments = typed(text);
        mistake(&parse(&arguments).unwrap_err(), &arguments)
    };
    let failure = told("holdfastctl release assign r -o json").unwrap();
    assert_eq!(failure.0.code, codes::USAGE);
    assert_eq!(failure.exit_code(), 2);
    for word in ["--node", "were not provided"] {
        assert!(failure.0.message.contains(word), "{failure}");
    }
    assert!(!failure.0.message.contains("Usage"), "{failure}");
    for json in ["-ojson", "-o=json", "--output=json", "--output json"] {
        assert!(told(&format!("holdfastctl nodes {json}")).is_some(), "{json}");
    }
    for people in [
        "holdfastctl nodes",
        "holdfastctl nodes -o yaml",
        "holdfastctl --help -o json",
    ] {
        assert!(told(people).is_none(), "{people}");
    }
}
