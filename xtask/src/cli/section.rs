//! Settings of the libraries in a command's help.

use clap::Arg;
use clap::builder::Resettable;

/// Puts arguments under a heading in an order of their own, and of their documentation only the first paragraph.
pub fn section(heading: &'static str, arguments: &str) -> impl Fn(Arg) -> Arg {
    move |arg| match arguments.split_whitespace().position(|id| arg.get_id() == id) {
        Some(at) => arg.help_heading(heading).display_order(at).long_help(Resettable::Reset),
        None => arg,
    }
}
