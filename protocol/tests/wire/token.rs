//! Enrolment tokens.

use crate::golden;
use holdfast_protocol::{
    Digest, codes,
    token::{EnrolmentToken, InvalidToken},
};
use proptest::prelude::*;

fn token() -> EnrolmentToken {
    EnrolmentToken {
        hub_url: "https://hub.example:8443".into(),
        ca_pin: Some(Digest::of(b"key")),
        id: "t-7f3a".into(),
        secret: [7; 32],
    }
}

fn code(text: &str) -> Option<&'static str> {
    text.parse::<EnrolmentToken>().err().map(|error| error.code())
}

#[test]
fn a_token_has_its_golden_form() {
    golden::check_text("token.txt", &format!("{}\n", token()));
    // With the line's end, as it comes out of a file.
    assert_eq!(golden::read("token.txt").parse(), Ok(token()));
}

#[test]
fn every_truncation_is_told_as_one() {
    let text = token().to_string();
    for length in 1..text.len() {
        assert_eq!(
            code(&text[..length]),
            Some(codes::TOKEN_TRUNCATED),
            "{}",
            &text[..length]
        );
    }
    assert_eq!(code(""), Some(codes::TOKEN_MALFORMED));
}

#[test]
fn every_altered_letter_is_noticed() {
    let text = token().to_string();
    for position in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[position] = if bytes[position] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(bytes).unwrap();
        assert!(code(&altered).is_some(), "{altered}");
    }
}

#[test]
fn what_is_no_token_is_told_as_that() {
    for text in [
        "hello",
        "hf2.abc.12345678",
        "hfop_abc",
        "hf1.a b.12345678",
        &"hf1.".repeat(2_000),
    ] {
        assert_eq!(code(text), Some(codes::TOKEN_MALFORMED), "{text}");
    }
    assert!(matches!(
        "hf2.abc.12345678".parse::<EnrolmentToken>(),
        Err(InvalidToken::Version { found }) if found == "hf2.abc."
    ));
}

#[test]
fn the_secret_is_never_shown() {
    let shown = format!("{:?}", token());
    assert!(
        !shown.contains("secret") && !shown.contains('7'.to_string().repeat(3).as_str()),
        "{shown}"
    );
    assert!(shown.contains("t-7f3a"));
}

proptest! {
    #[test]
    fn tokens_are_read_as_they_are_written(
        host in "[a-z]{1,20}", pin: Option<[u8; 32]>, id in "[a-z0-9-]{1,20}", secret: [u8; 32]
    ) {
        let token = EnrolmentToken {
            hub_url: format!("https://{host}"),
            ca_pin: pin.map(Digest::from_bytes),
            id,
            secret,
        };
        let text = token.to_string();
        prop_assert_eq!(text.parse(), Ok(token.clone()));
        prop_assert_eq!(format!("  {text}\n").parse(), Ok(token));
    }

    #[test]
    fn no_text_makes_it_panic(text in "(hf1\\.)?.{0,200}") {
        prop_assert!(text.parse::<EnrolmentToken>().is_err());
    }
}
