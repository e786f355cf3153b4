//! Shows the libraries' settings in a command's help.

use clap::Arg;
use clap::builder::Resettable;

/// Puts arguments under their own heading, in their own order, with only the first paragraph of their
/// documentation.
pub fn section(heading: &'static str, arguments: &str) -> impl Fn(Arg) -> Arg {
    move |arg| match arguments.split_whitespace().position(|id| arg.get_id() == id) {
        Some(at) => arg.help_heading(heading).display_order(at).long_help(Resettable::Reset),
        None => arg,
    }
}
