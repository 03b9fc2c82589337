//! Reads what our own code takes for a claim, as `cargo bench` left it in the target folder: time from criterion, and
//! instructions, which no other program on the machine affects, from gungraun.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

use super::record::Suite;

/// A step of a claim in our own code, with its cost for one claim, even if many share the work.
struct Step {
    name: String,
    nanoseconds: f64,
    instructions: f64,
}

pub fn measure(suite: &mut Suite<'_>, target: &Path) -> anyhow::Result<()> {
    for Step { name, nanoseconds, instructions } in read(target)? {
        suite.report(&format!("9: {name}, ns a claim"), nanoseconds);
        suite.report(&format!("9: {name}, instructions a claim"), instructions);
    }
    Ok(())
}

/// All measured steps, sorted by name.
fn read(target: &Path) -> anyhow::Result<Vec<Step>> {
    let mut steps = Vec::new();
    for folder in folders(&target.join("criterion"))? {
        let name = name_of(&folder);
        for measured in folders(&folder)? {
            // The name is the number of claims that share the work; the other folder is criterion's own report.
            let Ok(claims) = name_of(&measured).parse::<f64>() else { continue };
            let nanoseconds = number(&measured.join("new/estimates.json"), "/median/point_estimate")?;
            let instructions = instructions(target, &name)?;
            let (nanoseconds, instructions) = (nanoseconds / claims, instructions / claims);
            steps.push(Step { name: name.clone(), nanoseconds, instructions });
        }
    }
    steps.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(steps)
}

fn instructions(target: &Path, name: &str) -> anyhow::Result<f64> {
    let is_of_step = |folder: &PathBuf| name_of(folder).split('.').next() == Some(name);
    let folder = folders(&target.join("gungraun/coupon-bench/instructions/per_claim_code"))?
        .into_iter()
        .find(is_of_step)
        .with_context(|| format!("the instructions of {name} were not counted"))?;
    let summary = folder.join("summary.json");
    let metrics = "/profiles/0/summaries/total/summary/Callgrind/Ir/metrics";
    // From the second run on, the summary holds the earlier run as well.
    number(&summary, &format!("{metrics}/Left/Int")).or_else(|_| number(&summary, &format!("{metrics}/Both/0/Int")))
}

fn folders(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)
        .with_context(|| format!("{} is not there: scripts/bench --code makes it", folder.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<PathBuf>>>()?;
    Ok(paths.into_iter().filter(|path| path.is_dir()).collect())
}

fn name_of(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn number(file: &Path, pointer: &str) -> anyhow::Result<f64> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let json: Value = serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))?;
    json.pointer(pointer).and_then(Value::as_f64).with_context(|| format!("{} has no {pointer}", file.display()))
}
