//! Which of the processes that compute together this is, by the variables of whatever launched it: torchrun,
//! `cargo xtask launch`, Slurm's srun or mpirun.

use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

/// The place of this process among those that compute together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub rank: usize,
    pub world_size: usize,
    /// The number of this process among those on its machine, which chooses its device.
    pub local_rank: usize,
    /// Processes on this machine, which share its cores.
    pub local_world_size: usize,
    /// Where all meet.
    pub address: String,
    pub port: u16,
    /// Whether the launcher serves the store there.
    pub store_is_served: bool,
    /// Tells restarts apart.
    pub prefix: String,
}

/// What a launcher calls the numbers of a process.
struct Launcher {
    name: &'static str,
    rank: &'static [&'static str],
    world_size: &'static [&'static str],
    local_rank: &'static [&'static str],
    local_world_size: &'static [&'static str],
}

const TORCHRUN: Launcher = Launcher {
    name: "torchrun",
    rank: &["RANK"],
    world_size: &["WORLD_SIZE"],
    local_rank: &["LOCAL_RANK"],
    local_world_size: &["LOCAL_WORLD_SIZE"],
};

const SRUN: Launcher = Launcher {
    name: "srun",
    rank: &["SLURM_PROCID"],
    world_size: &["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"],
    local_rank: &["SLURM_LOCALID"],
    local_world_size: &[],
};

const MPIRUN: Launcher = Launcher {
    name: "mpirun",
    rank: &["OMPI_COMM_WORLD_RANK", "PMI_RANK"],
    world_size: &["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"],
    local_rank: &["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID"],
    local_world_size: &["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"],
};

/// The ports from which a Slurm job's is chosen.
const PORTS: std::ops::Range<u64> = 10_000..30_000;

type Get<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Place {
    /// The place of this process, if it is one of several.
    pub fn of_this_process() -> Result<Option<Place>> {
        Place::read(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn read(get: Get<'_>) -> Result<Option<Place>> {
        // A batch script has Slurm's numbers, too, but is no step of the job.
        let is_step = get("SLURM_STEP_ID").or_else(|| get("SLURM_STEPID")).is_some();
        let launchers = [Some(TORCHRUN), is_step.then_some(SRUN), Some(MPIRUN)];
        let launched = |launcher: &Launcher| first::<usize>(get, launcher.rank).transpose().is_some();
        let Some(launcher) = launchers.into_iter().flatten().find(launched) else {
            ensure!(
                get("WORLD_SIZE").is_none_or(|size| size == "1"),
                "WORLD_SIZE is set and RANK is not: start the processes with torchrun, srun, mpirun or `cargo xtask launch`"
            );
            return Ok(None);
        };
        let needed = |names: &[&str]| {
            let found: Option<usize> = first(get, names)?;
            found.with_context(|| format!("{} is not set, as {} has it", names.join(" or "), launcher.name))
        };
        let (rank, world_size) = (needed(launcher.rank)?, needed(launcher.world_size)?);
        ensure!(
            rank < world_size,
            "{} is {rank}, but there are {world_size} processes",
            launcher.rank.join(" or ")
        );
        if world_size == 1 {
            return Ok(None);
        }
        let (address, port) = meeting_point(get, &launcher, world_size)?;
        let local_rank = first(get, launcher.local_rank)?.unwrap_or(0);
        let local_world_size = match first(get, launcher.local_world_size)? {
            Some(size) => size,
            None => tasks_per_node(get).unwrap_or(1),
        };
        let served = get("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value == "True");
        let restart = get("TORCHELASTIC_RESTART_COUNT").unwrap_or_default();
        Ok(Some(Place {
            rank,
            world_size,
            local_rank,
            local_world_size: local_world_size.max(1),
            address,
            port,
            store_is_served: served,
            prefix: format!("deep-fusion {restart}"),
        }))
    }
}

/// The first of these variables that is set, as a number.
fn first<T: FromStr>(get: Get<'_>, names: &[&str]) -> Result<Option<T>> {
    let found = names.iter().find_map(|name| Some((name, get(name)?)));
    found
        .map(|(name, value)| value.parse().ok().with_context(|| format!("{name} is {value:?}, not a number")))
        .transpose()
}

/// Where the processes meet: what `MASTER_ADDR` and `MASTER_PORT` say, or what the launcher says of itself.
fn meeting_point(get: Get<'_>, launcher: &Launcher, world_size: usize) -> Result<(String, u16)> {
    let port = first::<u16>(get, &["MASTER_PORT"])?;
    let of_job = || {
        let job: u64 = get("SLURM_JOB_ID").or_else(|| get("SLURM_JOBID"))?.parse().ok()?;
        Some((PORTS.start + job % (PORTS.end - PORTS.start)) as u16)
    };
    let address = get("MASTER_ADDR").or_else(|| {
        let nodes = ["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"];
        let nodes = nodes.iter().find_map(|name| get(name)).filter(|_| launcher.name == SRUN.name);
        let local = first::<usize>(get, MPIRUN.local_world_size).ok().flatten() == Some(world_size);
        nodes.map(|nodes| first_host(&nodes)).or_else(|| local.then(|| "127.0.0.1".to_owned()))
    });
    match (address, port.or_else(of_job)) {
        (Some(address), Some(port)) => Ok((address, port)),
        (None, _) => {
            bail!("MASTER_ADDR is not set: the host of rank 0, where all {world_size} processes meet")
        }
        (_, None) => bail!("MASTER_PORT is not set: a free port of the host of rank 0"),
    }
}

/// The first host of a list as Slurm writes it: `gpu[03-05,7],cpu1` begins with `gpu03`.
fn first_host(nodes: &str) -> String {
    match nodes.split_once('[') {
        Some((before, ranges)) if !before.contains(',') => {
            let (range, after) = ranges.split_once(']').unwrap_or((ranges, ""));
            let number = range.split([',', '-']).next().unwrap_or_default();
            let after = after.split(',').next().unwrap_or_default();
            format!("{before}{number}{after}")
        }
        _ => nodes.split(',').next().unwrap_or_default().to_owned(),
    }
}

/// Slurm's number of tasks on this node: `2(x3),1` stands for four nodes.
fn tasks_per_node(get: Get<'_>) -> Option<usize> {
    let all = get("SLURM_STEP_TASKS_PER_NODE").or_else(|| get("SLURM_TASKS_PER_NODE"))?;
    let node: usize = get("SLURM_NODEID").and_then(|node| node.parse().ok()).unwrap_or(0);
    let nodes = all.split(',').flat_map(|part| {
        let (tasks, times) = part.split_once("(x").unwrap_or((part, "1)"));
        let times = times.trim_end_matches(')').parse().unwrap_or(1);
        std::iter::repeat_n(tasks.parse::<usize>().ok(), times)
    });
    nodes.into_iter().nth(node).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Place>> {
        Place::read(&|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn error(variables: &[(&str, &str)]) -> String {
        read(variables).unwrap_err().to_string()
    }

    #[test]
    fn torchrun() {
        let mut variables = vec![
            ("RANK", "3"),
            ("WORLD_SIZE", "4"),
            ("LOCAL_RANK", "1"),
            ("LOCAL_WORLD_SIZE", "2"),
            ("MASTER_ADDR", "node1"),
            ("MASTER_PORT", "29500"),
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
            ("TORCHELASTIC_RESTART_COUNT", "2"),
        ];
        let place = read(&variables).unwrap().unwrap();
        let expected = Place {
            rank: 3,
            world_size: 4,
            local_rank: 1,
            local_world_size: 2,
            address: "node1".into(),
            port: 29500,
            store_is_served: true,
            prefix: "deep-fusion 2".into(),
        };
        assert_eq!(place, expected);
        variables[1].1 = "3";
        assert_eq!(error(&variables), "RANK is 3, but there are 3 processes");
        variables[1].1 = "many";
        assert_eq!(error(&variables), "WORLD_SIZE is \"many\", not a number");
        assert_eq!(error(&variables[..1]), "WORLD_SIZE is not set, as torchrun has it");
        variables[1].1 = "4";
        variables[4].1 = "";
        variables.remove(4);
        assert_eq!(
            error(&variables),
            "MASTER_ADDR is not set: the host of rank 0, where all 4 processes meet"
        );
    }

    #[test]
    fn one_process_is_no_group() {
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&[("WORLD_SIZE", "1")]).unwrap(), None);
        assert_eq!(read(&[("RANK", "0"), ("WORLD_SIZE", "1")]).unwrap(), None);
        assert!(error(&[("WORLD_SIZE", "2")]).starts_with("WORLD_SIZE is set and RANK is not"));
        // A batch script of a job with four tasks.
        assert_eq!(read(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")]).unwrap(), None);
    }

    #[test]
    fn srun() {
        let place = read(&[
            ("SLURM_STEP_ID", "0"),
            ("SLURM_JOB_ID", "1234567"),
            ("SLURM_PROCID", "5"),
            ("SLURM_NTASKS", "7"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_NODEID", "2"),
            ("SLURM_TASKS_PER_NODE", "2(x3),1"),
            ("SLURM_NODELIST", "gpu[03-05],cpu1"),
        ]);
        let place = place.unwrap().unwrap();
        assert_eq!((place.rank, place.world_size, place.local_rank, place.local_world_size), (5, 7, 1, 2));
        assert_eq!((place.address.as_str(), place.port), ("gpu03", 24567));
        assert!(!place.store_is_served);
        for (nodes, first) in [
            ("one", "one"),
            ("one,two", "one"),
            ("n[7]", "n7"),
            ("n[1,3-4]-ib,m", "n1-ib"),
            ("a,n[1-2]", "a"),
        ] {
            assert_eq!(first_host(nodes), first);
        }
    }

    #[test]
    fn mpirun() {
        let mut variables = vec![
            ("OMPI_COMM_WORLD_RANK", "1"),
            ("OMPI_COMM_WORLD_SIZE", "2"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
            ("MASTER_PORT", "29501"),
        ];
        let place = read(&variables).unwrap().unwrap();
        assert_eq!((place.rank, place.address.as_str(), place.port), (1, "127.0.0.1", 29501));
        variables[3].1 = "1";
        assert!(error(&variables).starts_with("MASTER_ADDR is not set"));
        variables.pop();
        variables.push(("MASTER_ADDR", "node1"));
        assert_eq!(error(&variables), "MASTER_PORT is not set: a free port of the host of rank 0");
    }
}
