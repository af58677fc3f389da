//! What can be said of the jobs of a store from any terminal.

use std::collections::BTreeMap;

use nnflow_cache::Store;

use super::error::SlurmError;
use super::folder::{Folder, JobFile, ReportedEnd, Work};
use super::queue::{self, Ending, Sighting, Standing};

/// What is said of a node's job, and how much that matters: a job that runs says more than one that has failed before.
type Said = (u8, String);

/// For each node that has a job in the queue, or had one that failed, how it stands.
///
/// # Errors
/// If Slurm cannot be asked or a job's folder cannot be read.
pub fn of_nodes(store: &Store) -> Result<BTreeMap<String, String>, SlurmError> {
    let folders = Folder::all(&store.jobs_folder())?;
    if folders.is_empty() {
        return Ok(BTreeMap::new());
    }
    let sightings = queue::look()?;
    let mut said: BTreeMap<String, Said> = BTreeMap::new();
    for folder in folders {
        let Some(job) = folder.job()? else { continue };
        let comment = folder.comment();
        for (number, element) in (0u32..).zip(&job.elements) {
            let sighting = sightings.get(&(comment.clone(), number));
            let Some(now) = of_element(&folder, &job, number as usize, sighting)? else { continue };
            match said.get(&element.node) {
                Some(before) if before.0 > now.0 => {}
                _ => drop(said.insert(element.node.clone(), now)),
            }
        }
    }
    Ok(said.into_iter().map(|(node, (_, text))| (node, text)).collect())
}

fn of_element(
    folder: &Folder,
    job: &JobFile,
    element: usize,
    sighting: Option<&Sighting>,
) -> Result<Option<Said>, SlurmError> {
    let name = sighting.map_or_else(|| job.name.clone(), |seen| seen.id.to_string());
    match sighting.map(|seen| (seen.standing, seen)) {
        Some((Standing::Running | Standing::Ending, seen)) => {
            return Ok(Some((3, format!("runs as job {name} on {}", seen.nodes))));
        }
        Some((Standing::Pending, seen)) => return Ok(Some((2, format!("waits as job {name}{}", seen.because())))),
        _ => {}
    }
    let units = match &job.elements[element].work {
        Work::Units(units) => units.len(),
        Work::Node { .. } => 1,
    };
    for unit in 0..units {
        if let Some(ReportedEnd::Failed(report)) = folder.report(element, unit)?.map(|report| report.end) {
            return Ok(Some((1, format!("failed in job {name}: {}", report.message))));
        }
    }
    Ok(match sighting {
        Some(Sighting { standing: Standing::Ended(Ending::Cancelled), reason, .. }) => {
            let why = if reason.contains("Dependency") { ", since what it waited for failed" } else { "" };
            Some((0, format!("job {name} was cancelled{why}")))
        }
        Some(Sighting { standing: Standing::Ended(ending), reason, .. }) if *ending != Ending::Completed => {
            Some((1, format!("job {name} ended: {reason}; its log is {}", folder.log(element).display())))
        }
        _ => None,
    })
}
