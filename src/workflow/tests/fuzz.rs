//! Nothing that anyone writes makes the program panic.

use arbtest::arbitrary::{Result, Unstructured};
use arbtest::arbtest;

use super::fixtures::{BASE, Fakes, HEAD, open, opened, options};
use crate::workflow::{LoadOptions, NodePattern, condition_parser, expand, parse_duration, parse_size};

/// Pieces that mean something somewhere.
const PIECES: &[&str] = &[
    "[",
    "]",
    "{",
    "}",
    "=",
    ",",
    ".",
    "\"",
    "'",
    "\n",
    " ",
    "#",
    "[[",
    "]]",
    "not ",
    "every ",
    " in ",
    " == ",
    "and",
    "(",
    ")",
    "-1",
    "0",
    "99999999999999999999",
    "1e999",
    "nan",
    "true",
    "1979-05-27",
    "\u{0}",
    "é",
    "\u{202e}",
    "stages",
    "axes",
    "over",
    "when",
    "inputs",
    "pairs",
    "from",
    "model",
    "dataset",
    "train",
    "fold",
    "configuration",
    "pair",
    "2d",
    "predict[",
    "enabled = false",
    "[axes]\n",
    "[stages.x]\n",
    "[expect]\n",
    "\"train.a\" = \">= 1\"\n",
    "12 GiB",
    "extends = \"base\"\n",
];

/// A workflow with some bytes cut, doubled, moved or replaced.
fn mutated(text: &str, random: &mut Unstructured<'_>) -> Result<String> {
    let mut characters: Vec<char> = text.chars().collect();
    for _ in 0..random.int_in_range(1..=6)? {
        let start = random.choose_index(characters.len().max(1))?.min(characters.len());
        let stop = (start + random.int_in_range(0..=20)?).min(characters.len());
        match random.int_in_range(0..=3)? {
            0 => drop(characters.drain(start..stop)),
            1 => {
                let piece = characters[start..stop].to_vec();
                let place = random.choose_index(characters.len().max(1))?.min(characters.len());
                characters.splice(place..place, piece);
            }
            2 => drop(characters.splice(start..start, random.choose(PIECES)?.chars())),
            _ => drop(characters.splice(start..stop, random.choose(PIECES)?.chars())),
        }
    }
    Ok(characters.into_iter().collect())
}

#[test]
fn mutated_workflows_are_understood_or_refused() {
    arbtest(|random| {
        let text = mutated(&format!("{HEAD}{BASE}"), random)?.replacen("extends = \"base\"", "", 1);
        check(&text, &options());
        Ok(())
    });
}

#[test]
fn mutated_changes_of_a_recipe_are_understood_or_refused() {
    const CHANGES: &str = "[axes]\nfold = [0, 1]\n[stages.train]\nover = [\"configuration\", \"fold\"]\nwhen = \"configuration in plan and not fold == '1'\"\n\
        inputs = { cases = \"resample\", previous = [\"predict[configuration=3d_lowres,fold=fold].labels\"] }\n\
        with = { epochs = 3, optimizer = { betas = [0.1, 0.2] } }\nresources = { memory = \"1 GiB\", time = \"1h\", device = \"cuda:0\" }\n\
        [expect]\n\"train[2d,*].a.b\" = { min = 1.5, severity = \"warn\" }\n[settings]\nthreads = 2\n";
    arbtest(|random| {
        let text = mutated(CHANGES, random)?;
        check(&format!("{HEAD}{text}"), &options());
        Ok(())
    });
}

#[test]
fn any_set_is_understood_or_refused() {
    const SETS: [&str; 5] =
        ["stages.train.with.epochs=5", "axes.fold=[0]", "name=a b", "dataset.path=x", "stages.train.inputs.plan=plan"];
    arbtest(|random| {
        let sets = (0..2).map(|_| mutated(random.choose(&SETS)?, random)).collect::<Result<Vec<_>>>()?;
        check(HEAD, &LoadOptions { sets, ..options() });
        Ok(())
    });
}

#[test]
fn any_text_is_understood_or_refused() {
    arbtest(|random| {
        let text: String = random.arbitrary()?;
        check(&text, &options());
        assert!(parse_size(&text).is_none_or(|size| size > 0));
        assert!(parse_duration(&text).is_none_or(|duration| !duration.is_zero()));
        assert!(!NodePattern::parse(&text).is_ok_and(|pattern| pattern.to_string().is_empty()));
        assert!(!condition_parser::parse(&text).is_ok_and(|parsed| parsed.condition.to_string().is_empty()));
        Ok(())
    });
}

#[test]
fn any_pattern_is_understood_or_refused() {
    let graph = opened(HEAD).1;
    arbtest(|random| {
        let pattern = mutated("train[2d,fold=*]", random)?;
        if let Err(error) = graph.find(&pattern) {
            assert!(!error.render(true).is_empty());
        }
        Ok(())
    });
}

/// Loads, draws and expands, or renders the errors both ways.
fn check(text: &str, options: &LoadOptions<'_>) {
    match open(text, options) {
        Ok((workflow, graph)) => {
            assert!(!expand(&workflow, &Fakes).is_empty());
            assert_eq!(graph.order().len(), graph.inner().node_count());
            assert!(
                graph.to_svg().ends_with("</svg>\n") && !graph.to_dot().is_empty() && !graph.to_mermaid().is_empty()
            );
        }
        Err(errors) => assert!(!errors.render(true).is_empty() && !errors.render(false).is_empty()),
    }
}
