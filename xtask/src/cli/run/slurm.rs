//! Stages as jobs of Slurm: each begins once those that it needs have succeeded.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use fusion_core::atomic::write_own_file;
use pipeline::stage::{Input, Stage};
use t5_model::ComputeChoice;

use super::Arguments;

/// The folder of a run that holds scripts and what jobs say.
const FOLDER: &str = "slurm";
/// Time to save before a job's time is up.
const GRACE: &str = "B:TERM@120";

/// A stage's job.
pub struct Job<'a> {
    pub stage: &'a Stage,
    /// The stages whose jobs must have succeeded.
    pub after: Vec<&'a str>,
    pub script: String,
}

/// The jobs of stages that are listed after those that they need.
pub fn jobs<'a>(
    arguments: &Arguments,
    name: &str,
    output: &Path,
    glue: Option<&Path>,
    stages: &[&'a Stage],
) -> Result<Vec<Job<'a>>> {
    let here = std::env::current_dir().context("the current directory is not known")?;
    let program = std::env::current_exe().context("this program's file is not known")?;
    let output = std::path::absolute(output)?;
    let glue = glue.map(std::path::absolute).transpose()?;
    let submitted = |stage: &str| stages.iter().any(|other| other.name == stage);
    let is_together = arguments.sbatch.iter().any(|option| {
        let option = option.split(['=', ' ']).next().unwrap_or_default();
        ["-n", "--ntasks", "--ntasks-per-node", "--ntasks-per-gpu"].contains(&option)
    });
    let job = |stage: &&'a Stage| {
        let mut words: Vec<OsString> = Vec::new();
        if is_together {
            words.extend(["srun".into(), "--kill-on-bad-exit=1".into()]);
        }
        words.extend([program.clone().into(), "run".into(), arguments.recipe.clone().into()]);
        words.extend(["--only".into(), stage.name.clone().into(), "--output".into(), output.clone().into()]);
        for set in &arguments.sets {
            words.extend(["--set".into(), set.into()]);
        }
        for variable in &arguments.variables {
            words.extend(["--var".into(), variable.into()]);
        }
        if let Some(glue) = &glue {
            words.extend(["--glue".into(), glue.clone().into()]);
        }
        words.extend(arguments.redo.then(|| "--redo".into()));
        words.extend(compute(&arguments.compute));
        let log = output.join(FOLDER).join(format!("{}-%j.log", stage.name));
        let mut script = format!("#!/bin/bash\n#SBATCH --job-name={name}/{}\n", stage.name);
        script += &format!("#SBATCH --output={}\n#SBATCH --signal={GRACE}\n", log.display());
        arguments.sbatch.iter().for_each(|option| script += &format!("#SBATCH {option}\n"));
        let words: Vec<String> = words.iter().map(|word| quoted(&word.to_string_lossy())).collect();
        script += &format!("cd {}\nexec {}\n", quoted(&here.to_string_lossy()), words.join(" "));
        let inputs = stage.work.inputs().into_iter().filter_map(Input::stage);
        Job { stage, after: inputs.filter(|input| submitted(input)).collect(), script }
    };
    Ok(stages.iter().map(job).collect())
}

/// The flags that say what is said of it.
fn compute(choice: &ComputeChoice) -> Vec<OsString> {
    let ComputeChoice { backend, device, precision, checkpoint_activations, threads } = choice;
    let flags = [
        backend.as_ref().map(|backend| format!("--backend={backend}")),
        device.as_ref().map(|device| format!("--device={device}")),
        precision.map(|precision| format!("--precision={precision}")),
        checkpoint_activations.map(|whether| format!("--checkpoint-activations={whether}")),
        threads.map(|threads| format!("--threads={threads}")),
    ];
    flags.into_iter().flatten().map(OsString::from).collect()
}

/// Hands the jobs to Slurm; returns what it calls each.
pub fn submit(jobs: &[Job<'_>], output: &Path) -> Result<Vec<String>> {
    let folder = output.join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut numbers: BTreeMap<&str, String> = BTreeMap::new();
    for job in jobs {
        let name = format!("{}.sh", job.stage.name);
        write_own_file(&folder, &name, job.script.as_bytes())?;
        let mut sbatch = Command::new("sbatch");
        sbatch.arg("--parsable");
        let after: Vec<&str> =
            job.after.iter().filter_map(|stage| numbers.get(stage).map(String::as_str)).collect();
        if !after.is_empty() {
            sbatch.arg(format!("--dependency=afterok:{}", after.join(":")));
        }
        sbatch.arg(folder.join(&name)).stderr(Stdio::inherit());
        let submitted =
            sbatch.output().context("cannot start sbatch: is this a machine of a Slurm cluster?")?;
        ensure!(submitted.status.success(), "sbatch has refused stage {:?}", job.stage.name);
        // A cluster's name may follow.
        let said = String::from_utf8_lossy(&submitted.stdout);
        let number = said.trim().split(';').next().unwrap_or_default().to_owned();
        ensure!(
            !number.is_empty(),
            "sbatch has not said the number of the job of stage {:?}",
            job.stage.name
        );
        numbers.insert(&job.stage.name, number);
    }
    Ok(jobs.iter().filter_map(|job| numbers.get(job.stage.name.as_str()).cloned()).collect())
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-=:,@%+".contains(letter);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}
