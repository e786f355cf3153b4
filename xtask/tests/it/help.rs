use crate::program::call;

/// The commands that a help text lists.
fn commands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    // Continuation lines are indented further.
    let names = listed.take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix("  "));
    names
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

/// Snapshots the help of a command and its subcommands.
fn snapshot(command: &[String]) {
    let words: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
    let help = call(&words).success();
    let name = if command.is_empty() { "xtask".to_owned() } else { command.join("_") };
    for below in commands(&help) {
        snapshot(&[command, &[below]].concat());
    }
    insta::assert_snapshot!(name, help);
}

#[test]
fn help() {
    snapshot(&[]);
}
