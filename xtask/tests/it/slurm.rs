//! Stages as jobs of Slurm, with a stand-in for `sbatch`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::program::{Called, PROGRAM, directory};

/// Numbers the jobs, notes what it is given, and runs the script at once.
const SBATCH: &str = r#"#!/bin/bash
number=$(($(cat "$JOBS/number" 2>/dev/null || echo 100) + 1))
echo $number > "$JOBS/number"
script="${@: -1}"
echo "$(basename "$script") ${@:1:$#-1}" >> "$JOBS/submitted"
[ "$(basename "$script")" = "$REFUSED" ] && { echo "sbatch: error: no such partition" >&2; exit 1; }
bash "$script" > "$JOBS/$number.log" 2>&1
echo "$number;cluster"
"#;

const RECIPE: &str = concat!(
    small_model!(),
    r#"
[variables]
steps = 1

[pretraining]
steps = "${steps}"
batch_size = 2

[stages.words]
kind = "tokenizer"
vocabulary = 160

[stages.a]
kind = "pretrain"
model = "small"

[stages.b]
kind = "pretrain"
model = "small"

[stages.fused]
kind = "fuse"
parents = ["a", "b"]

[stages.large]
kind = "pretrain"
from = "fused"
"#
);

fn text() -> String {
    (0..60)
        .map(|number| format!("Line {number} tells of {} hills and {} rivers.\n\n", number * 7, number % 9))
        .collect()
}

struct Cluster(tempfile::TempDir);

impl Cluster {
    fn new() -> Self {
        let folder =
            directory(&[("recipe.toml", RECIPE), ("a.txt", &text()), ("bin/sbatch", SBATCH), ("jobs/x", "")]);
        let sbatch = folder.path().join("bin/sbatch");
        fs::set_permissions(sbatch, fs::Permissions::from_mode(0o755)).expect("a program");
        Cluster(folder)
    }

    fn run(&self, arguments: &[&str], refused: &str) -> Called {
        let path =
            format!("{}:{}", self.0.path().join("bin").display(), std::env::var("PATH").unwrap_or_default());
        let mut command = std::process::Command::new(PROGRAM);
        command
            .args(["run", "recipe.toml", "--slurm", "--output", "run"])
            .args(arguments)
            .current_dir(self.0.path());
        command.envs([("PATH", path.as_str()), ("REFUSED", refused)]).env("JOBS", self.0.path().join("jobs"));
        let ended = command.output().expect("the program starts");
        let said = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Called { code: ended.status.code(), stdout: said(ended.stdout), stderr: said(ended.stderr) }
    }

    fn submitted(&self) -> String {
        fs::read_to_string(self.0.path().join("jobs/submitted")).unwrap_or_default()
    }
}

#[test]
fn every_stage_is_a_job_that_waits_for_those_it_needs() {
    let cluster = Cluster::new();
    let shown = cluster.run(&["--dry-run", "--sbatch", "--time=1:00:00", "--var", "steps=2"], "").success();
    let (place, program) = (cluster.0.path().display().to_string(), PROGRAM);
    let shown = shown.replace(program, "PROGRAM").replace(&place, "HERE");
    insta::assert_snapshot!(shown.split_inclusive("\n\n").last().unwrap_or_default(), @r"
    # large, after fused, words
    #!/bin/bash
    #SBATCH --job-name=recipe/large
    #SBATCH --output=HERE/run/slurm/large-%j.log
    #SBATCH --signal=B:TERM@120
    #SBATCH --time=1:00:00
    cd HERE
    exec PROGRAM run recipe.toml --only large --output HERE/run --var steps=2
    ");
    assert_eq!(cluster.submitted(), "", "nothing was handed in");

    let said = cluster.run(&["--var", "steps=2"], "").success();
    assert_eq!(said, "words: job 101\na: job 102\nb: job 103\nfused: job 104\nlarge: job 105\n");
    assert_eq!(
        cluster.submitted(),
        "words.sh --parsable\n\
         a.sh --parsable --dependency=afterok:101\n\
         b.sh --parsable --dependency=afterok:101\n\
         fused.sh --parsable --dependency=afterok:102:103\n\
         large.sh --parsable --dependency=afterok:104:101\n"
    );
    let metrics = fs::read_to_string(cluster.0.path().join("run/large/metrics.jsonl")).expect("metrics");
    assert!(metrics.contains("\"step\":2"), "{metrics}");
    assert!(cluster.0.path().join("run/report.html").exists());
    assert_eq!(cluster.run(&["--var", "steps=2"], "").success(), "", "there is nothing left to do");
}

#[test]
fn what_was_not_handed_in_is_handed_in_again() {
    let cluster = Cluster::new();
    let said = cluster.run(&[], "fused.sh").failure();
    assert!(
        said.contains("sbatch has refused stage \"fused\"") && said.contains("no such partition"),
        "{said}"
    );
    let said = cluster.run(&["--sbatch", "--ntasks=2"], "").success();
    assert_eq!(said, "fused: job 105\nlarge: job 106\n");
    let script = fs::read_to_string(cluster.0.path().join("run/slurm/large.sh")).expect("a script");
    assert!(
        script.contains("#SBATCH --ntasks=2\n") && script.contains("\nexec srun --kill-on-bad-exit=1 "),
        "{script}"
    );
}

#[test]
fn without_slurm_it_says_so() {
    let folder = directory(&[("recipe.toml", RECIPE), ("a.txt", &text())]);
    let mut command = std::process::Command::new(PROGRAM);
    command.args(["run", "recipe.toml", "--slurm"]).current_dir(folder.path()).env("PATH", "/nowhere");
    let ended = command.output().expect("the program starts");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("cannot start sbatch: is this a machine of a Slurm cluster?"), "{said}");
}
