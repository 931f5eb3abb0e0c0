//! The log: lines for people, for the journal, or JSON, on standard error. The level is chosen by part of the program.

use crate::settings::Log;
use std::{fmt, io};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    Layer as _, Registry,
    filter::Targets,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Full, Writer},
    },
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::{SubscriberInitExt as _, TryInitError},
};

/// Starts the log. The settings have been validated, so an unknown level or format falls back to `info` and `human`.
pub fn start(settings: &Log) -> Result<(), TryInitError> {
    let levels: Targets = settings
        .level
        .parse()
        .unwrap_or_else(|_| Targets::new().with_default(Level::INFO));
    // A line that nobody takes is lost; complaining about it on the same stream would end the process.
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .log_internal_errors(false);
    let layer = match settings.format.as_str() {
        "json" => lines.json().flatten_event(true).boxed(),
        "journal" => lines
            .with_ansi(false)
            .event_format(Journal(Format::default().without_time()))
            .boxed(),
        _ => lines
            .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
            .boxed(),
    };
    Registry::default().with(layer.with_filter(levels)).try_init()
}

/// Lines with the priority prefix of sd-daemon(3), which the journal takes off and keeps.
struct Journal(Format<Full, ()>);

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(context, writer, event)
    }
}
