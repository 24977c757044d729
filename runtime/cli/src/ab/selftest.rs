//! A against A, many times: how often noise alone is taken for a difference.

use super::args::{Args, Sides};
use super::progress::Progress;
use super::{describe, measure};
use crate::out::outln;
use crate::trial::launch::Launcher;
use crate::trial::plan::Plan;
use anyhow::bail;
use millrace_ab::{Word, analyse};

/// Runs `times` experiments of arm A against itself. Fails when more than one in twenty finds a difference.
pub(super) fn run(
    args: &Args,
    sides: &[Sides; 2],
    launcher: &Launcher<'_>,
    plans: &[Plan; 2],
    times: u32,
    progress: &mut Progress,
) -> anyhow::Result<u8> {
    let arms = [sides[0].clone(), sides[0].clone()];
    let same = [plans[0].clone(), plans[0].clone()];
    let mut wrong = Vec::new();
    for number in 1..=times {
        progress.say(&format!("self-test {number} of {times}"));
        let mut experiment = describe(args, &arms, &same);
        if let Some(why) = measure(args, launcher, [&same[0], &same[1]], &mut experiment, progress)? {
            bail!("self-test {number} of {times}: {why}");
        }
        let verdict = analyse(&experiment).verdict;
        progress.erase();
        outln!("{number}: {}: {}", verdict.word, verdict.reason);
        if verdict.word != Word::NoDifferenceShown {
            wrong.push(number.to_string());
        }
    }
    let right = times as usize - wrong.len();
    outln!("{right} of {times} said 'no difference shown'");
    let allowed = times as usize / 20;
    if wrong.len() > allowed {
        outln!("{} said otherwise, and {allowed} may: {}", wrong.len(), wrong.join(", "));
        return Ok(super::NOT_MET);
    }
    Ok(0)
}
