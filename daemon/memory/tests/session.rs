//! A child in a session of its own.

use std::process::Command;

#[test]
fn a_child_leads_a_session_of_its_own() {
    let mut command = Command::new("sh");
    // The sixth field of its status is its session.
    command.args([
        "-c",
        "read -r id _ _ _ _ session _ < /proc/self/stat; echo $id $session $$",
    ]);
    let output = holdfast_memory::in_own_session(&mut command).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let numbers: Vec<_> = text.split_whitespace().collect();
    assert_eq!(numbers[1], numbers[2], "{text}");
}
