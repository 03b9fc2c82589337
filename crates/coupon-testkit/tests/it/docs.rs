//! The documents, compared with the code. Goal: whatever a document names exists, its links lead somewhere, the table
//! of settings matches the programs, and documents that are meant to be short stay short. Method: the code spans,
//! tables and links of each document are looked up in the files of the repository.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clap::{Command, CommandFactory};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The folders of the repository that hold sources, as opposed to anything built or generated.
const FOLDERS: [&str; 6] = [".ci", ".github", "crates", "deploy", "docs", "scripts"];

/// How many words a document may have, code and tables included.
const WORDS_MAX: [(&str, usize); 3] = [("README.md", 1_300), ("README.ko.md", 1_300), ("docs/ARCHITECTURE.md", 2_500)];

/// This document is about the past, so what it names may no longer exist.
const HISTORY: &str = "CHANGELOG.md";

/// Features of the servers that documents mention and the code does not use.
const UNUSED: [&str; 3] = ["AUTH", "JSON_TABLE", "LATERAL"];

#[test]
fn short_documents_stay_short() {
    let files = Files::read();

    for (document, words_max) in WORDS_MAX {
        let words = files.text(document).split_whitespace().count();
        assert!(words <= words_max, "{document} has {words} words, more than {words_max}");
    }
}

#[test]
fn what_documents_name_exists() {
    let files = Files::read();
    let words = files.words();

    let mut missing = Vec::new();
    for (document, text) in files.documents().filter(|(document, _)| *document != HISTORY) {
        for paragraph in without_fences(text).split("\n\n") {
            assert!(paragraph.matches('`').count() % 2 == 0, "{document}: a code span is not closed: {paragraph}");
            let pieces: Vec<&str> = paragraph.split('`').collect();
            for (index, &span) in pieces.iter().enumerate().skip(1).step_by(2) {
                if !files.has(span) || !is_known(span, &words) {
                    missing.push(format!("{document}: `{span}`"));
                }
                // A constant that follows a path is declared in that file.
                let next = pieces.get(index + 2).filter(|_| pieces[index + 1] == " ");
                if let Some(constant) = next.filter(|next| has_extension(span, "rs") && is_upper_case(next))
                    && !files.ending_with(span).any(|text| text.contains(&format!("const {constant}:")))
                {
                    missing.push(format!("{document}: `{constant}` in `{span}`"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "named in a document, but missing:\n{}", missing.join("\n"));
}

#[test]
fn links_lead_somewhere() {
    let files = Files::read();

    let mut broken = Vec::new();
    for (document, text) in files.documents() {
        let folder = Path::new(document).parent().unwrap();
        for link in
            without_fences(text).split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link)
        {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { document.to_owned() } else { normalized(&folder.join(file)) };
            let is_elsewhere = link.contains("://");
            let leads = Path::new(ROOT).join(&target).exists()
                && (anchor.is_empty() || headings(files.text(&target)).any(|(_, heading)| slug(heading) == anchor));
            if !is_elsewhere && !leads {
                broken.push(format!("{document}: {link}"));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn the_table_of_settings_matches_the_programs() {
    let files = Files::read();
    let rows = settings(files.text("docs/CONFIGURATION.md"));

    for (program, command) in [
        ("P", producer_api::Settings::command()),
        ("C", queue_consumer::Settings::command()),
        ("S", skiplock_api::Settings::command()),
    ] {
        let has = settings_of(&command);
        for (flag, (variable, default)) in &has {
            let row = rows.get(flag).unwrap_or_else(|| panic!("{flag} of {} is not in the table", command.get_name()));
            assert_eq!(row.variable, *variable, "{flag}");
            assert!(row.programs.contains(program), "{flag} is a setting of {program} too");
            // A default that the machine decides is described in words.
            let is_right = !row.default.contains('`') || row.default.contains(default.as_str());
            assert!(is_right, "the default of {flag} is {default}, not {}", row.default);
        }
        for (flag, row) in &rows {
            assert!(!row.programs.contains(program) || has.contains_key(flag), "{program} has no setting {flag}");
        }
    }
}

#[test]
fn both_readmes_are_in_step() {
    let files = Files::read();
    let [english, korean] = ["README.md", "README.ko.md"].map(|document| files.text(document));

    let levels = |text| headings(text).map(|(level, _)| level).collect::<Vec<_>>();
    assert_eq!(levels(english), levels(korean), "headings");
    assert_eq!(examples(english), examples(korean), "examples, without their comments");
}

/// The text files of the repository by their path.
struct Files(BTreeMap<String, String>);

impl Files {
    fn read() -> Self {
        let mut files = BTreeMap::new();
        read_folder("", false, &mut files);
        for folder in FOLDERS {
            read_folder(folder, true, &mut files);
        }
        Self(files)
    }

    fn text(&self, path: &str) -> &str {
        self.0.get(path).map_or_else(|| panic!("{path} does not exist"), String::as_str)
    }

    fn documents(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter(|(path, _)| has_extension(path, "md")).map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The texts of the files whose path ends like this, in any crate.
    fn ending_with(&self, end: &str) -> impl Iterator<Item = &str> {
        let end = format!("/{end}");
        self.0.iter().filter(move |(path, _)| format!("/{path}").ends_with(&end)).map(|(_, text)| text.as_str())
    }

    /// Whether a code span that is a path leads to a file or a folder. Any other span passes.
    fn has(&self, span: &str) -> bool {
        let is_path = !span.contains(|c: char| c.is_whitespace() || "{}*<>…".contains(c));
        let is_ours = FOLDERS.iter().any(|folder| span.starts_with(&format!("{folder}/")));
        if is_path && span.ends_with('/') && (is_ours || span.starts_with("src/")) {
            self.0.keys().any(|path| format!("/{path}").contains(&format!("/{span}")))
        } else if is_path && (is_ours || has_extension(span, "rs")) {
            self.ending_with(span).next().is_some() || Path::new(ROOT).join(span).is_dir()
        } else {
            true
        }
    }

    /// All words of the files that are not documents. This file does not count, because it lists what the code lacks.
    fn words(&self) -> BTreeSet<&str> {
        let sources =
            self.0.iter().filter(|(path, _)| !has_extension(path, "md") && !path.ends_with("tests/it/docs.rs"));
        sources.flat_map(|(_, text)| text.split(|c: char| !c.is_ascii_alphanumeric() && !"_-".contains(c))).collect()
    }
}

fn read_folder(folder: &str, with_folders: bool, files: &mut BTreeMap<String, String>) {
    let Ok(entries) = std::fs::read_dir(Path::new(ROOT).join(folder)) else { return };
    for entry in entries {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        let path = path.trim_start_matches('/');
        if entry.file_type().unwrap().is_dir() {
            if with_folders {
                read_folder(path, true, files);
            }
        } else if let Ok(text) = std::fs::read_to_string(entry.path()) {
            files.insert(path.to_owned(), text);
        }
    }
}

/// Whether a code span that is a constant, a variable (with or without a value) or a flag occurs in the sources, where
/// a flag may be the name of a field. Any other span passes.
fn is_known(span: &str, words: &BTreeSet<&str>) -> bool {
    let name = span.split('=').next().unwrap();
    if let Some(flag) =
        span.strip_prefix("--").filter(|flag| !flag.contains(|c: char| !c.is_ascii_lowercase() && c != '-'))
    {
        words.contains(span) || words.contains(flag.replace('-', "_").as_str())
    } else {
        !is_upper_case(name) || UNUSED.contains(&name) || words.contains(name)
    }
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

fn is_upper_case(name: &str) -> bool {
    name.len() > 2
        && name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// A document without its blocks of code.
fn without_fences(text: &str) -> String {
    text.split("```").step_by(2).collect::<Vec<_>>().join("\n\n")
}

/// The lines of a document's blocks of code, without comments.
fn examples(text: &str) -> Vec<&str> {
    let blocks = text.split("```").skip(1).step_by(2);
    blocks.flat_map(str::lines).map(|line| line.split(" # ").next().unwrap().trim_end()).collect()
}

/// The headings of a document with their level.
fn headings(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let outside = text.split("```").step_by(2).flat_map(str::lines);
    outside.filter_map(|line| {
        let heading = line.trim_start_matches('#');
        let level = line.len() - heading.len();
        heading.strip_prefix(' ').filter(|_| level > 0).map(|heading| (level, heading))
    })
}

/// The anchor that GitHub gives a heading.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The path without any `..` in it.
fn normalized(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.iter().map(|part| part.to_str().unwrap()) {
        match part {
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A row of the table of settings.
struct Row {
    variable: String,
    default: String,
    programs: BTreeSet<String>,
}

/// The rows of the table of settings, by flag.
fn settings(document: &str) -> BTreeMap<String, Row> {
    let rows = document.lines().filter(|line| line.starts_with("| `--"));
    rows.map(|row| {
        let mut cells = row.split('|').skip(1).map(str::trim);
        let mut next = || cells.next().unwrap().to_owned();
        let [flag, variable, default, programs] = [next(), next(), next(), next()];
        let programs = if programs == "all" { "P C S".to_owned() } else { programs };
        let row = Row { variable, default, programs: programs.split(' ').map(str::to_owned).collect() };
        (flag, row)
    })
    .collect()
}

/// The settings of a program: variable and default by flag, each written as in the table.
fn settings_of(command: &Command) -> BTreeMap<String, (String, String)> {
    let arguments = command.get_arguments().filter(|argument| argument.get_env().is_some());
    arguments
        .map(|argument| {
            let code = |text: &str| format!("`{text}`");
            let default = argument.get_default_values().first().map_or("", |value| value.to_str().unwrap());
            let default = if default.is_empty() { String::new() } else { code(default) };
            let variable = code(argument.get_env().unwrap().to_str().unwrap());
            (code(&format!("--{}", argument.get_long().unwrap())), (variable, default))
        })
        .collect()
}
