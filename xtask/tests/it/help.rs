use crate::program::call;

/// The commands that a help text lists.
fn commands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    // Continuation lines are indented further.
    let names = listed.take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix("  "));
    names
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split(' ').next())
        .filter(|name| *name != "help")
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

#[test]
fn help_of_a_command() {
    for command in [&["fuse"][..], &["data", "fetch"]] {
        let asked = [&["help"], command].concat();
        let expected = [command, &["--help"]].concat();
        assert_eq!(call(&asked).success(), call(&expected).success());
    }
}

#[test]
fn version() {
    let version = format!("cargo xtask {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(call(&["-V"]).success(), version);
    let long = call(&["--version"]).success();
    assert!(
        long.starts_with(&version) && long.lines().nth(1).is_some_and(|line| line.starts_with("built with "))
    );
}

/// What is missing, with the alternatives.
#[test]
fn usage_names_required_alternatives() {
    let missing = ["pretrain --output o --text t --tokenizer k", "fuse a b"]
        .map(|words| call(&words.split(' ').collect::<Vec<_>>()));
    assert!(missing.iter().all(|called| called.code == Some(2)));
    insta::assert_snapshot!(missing.map(|called| called.stderr).join("\n"));
}
