use crate::program::call;

#[test]
fn help() {
    insta::assert_snapshot!("xtask", call(&["--help"]).success());
    let commands = [
        "run", "pretrain", "fuse", "check", "evaluate", "glue", "generate", "verify", "inspect", "export",
        "convert", "forward", "report", "backends", "bundle", "ci",
    ];
    for command in commands {
        insta::assert_snapshot!(command, call(&[command, "--help"]).success());
    }
    insta::assert_snapshot!("bench_glue", call(&["bench", "glue", "--help"]).success());
    insta::assert_snapshot!("data_check", call(&["data", "check", "--help"]).success());
    insta::assert_snapshot!("data_fetch", call(&["data", "fetch", "--help"]).success());
    insta::assert_snapshot!("bench_train", call(&["bench", "train", "--help"]).success());
}
