//! The documents name what exists: every relative link, every heading it points to, every file in code font.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// A path in code font is checked if it begins with one of these.
const TOP: [&str; 5] = ["dataplane/", "ctl/", "tests/", "benches/", "docs/"];

#[test]
fn links_lead_somewhere() {
    let mut wrong = String::new();
    for page in pages() {
        for (line, target) in links(&page.text) {
            let (path, heading) =
                target.split_once('#').map_or((target.as_str(), None), |(p, h)| (p, Some(h)));
            let to =
                if path.is_empty() { page.path.clone() } else { page.path.with_file_name("").join(path) };
            if !to.exists() {
                let _ = writeln!(wrong, "{}:{line}: {target}: no such file", page.name());
            } else if let Some(heading) = heading
                && to.extension().is_some_and(|e| e == "md")
                && !anchors(&read(&to)).contains(heading)
            {
                let _ = writeln!(wrong, "{}:{line}: {target}: no such heading", page.name());
            }
        }
    }
    assert!(wrong.is_empty(), "links that lead nowhere:\n{wrong}");
}

#[test]
fn files_in_code_font_exist() {
    let mut wrong = String::new();
    for page in pages().into_iter().filter(|p| !p.path.ends_with("CHANGELOG.md")) {
        for (line, path) in paths_in_code_font(&page.text) {
            if !root().join(&path).exists() {
                let _ = writeln!(wrong, "{}:{line}: {path}", page.name());
            }
        }
    }
    assert!(wrong.is_empty(), "files that the documents name and that do not exist:\n{wrong}");
}

struct Page {
    path: PathBuf,
    text: String,
}

impl Page {
    fn name(&self) -> String {
        self.path.strip_prefix(root()).unwrap_or(&self.path).display().to_string()
    }
}

/// README.md, where it is there, and everything below docs/.
fn pages() -> Vec<Page> {
    let mut paths: Vec<PathBuf> = [root().join("README.md")].into_iter().filter(|p| p.exists()).collect();
    let mut left = vec![root().join("docs")];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                paths.push(path);
            }
        }
    }
    assert!(!paths.is_empty(), "no documents");
    paths.sort();
    paths.into_iter().map(|path| Page { text: read(&path), path }).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The lines outside fenced blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// Targets of links and images that stay in the repository.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let line = without_code(line);
        for (at, _) in line.match_indices("](") {
            let target = line[at + 2..].split([')', ' ']).next().unwrap_or_default();
            if !target.contains("://") && !target.starts_with("mailto:") {
                found.push((number, target.to_owned()));
            }
        }
        // [reference]: target
        if let Some((label, target)) = line.trim_start().split_once("]: ")
            && label.starts_with('[')
            && !label.starts_with("[^")
            && !target.contains("://")
        {
            found.push((number, target.trim().to_owned()));
        }
    }
    found
}

/// The line without what stands in code font.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

/// Code font that reads as a path of the repository: no placeholder, no pattern, no command.
fn paths_in_code_font(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        for code in line.split('`').skip(1).step_by(2) {
            let plain = code.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            if plain && TOP.iter().any(|top| code.starts_with(top)) {
                found.push((number, code.to_owned()));
            }
        }
    }
    found
}

/// The anchors of a page's headings, made as the usual forges make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(text).filter(|(_, l)| l.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let anchor: String = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let mut name = anchor.clone();
        for n in 1.. {
            if anchors.insert(name) {
                break;
            }
            name = format!("{anchor}-{n}"); // the second heading of a name
        }
    }
    anchors
}

#[test]
fn links_paths_and_headings_are_found() {
    let text = "# The `a` b\n[x](docs/a.md#b) `[y](z)` ![p](../p.svg \"title\") [w](https://example.org)\n\
                ```\n[q](r)\n# c\n```\n[l]: m.md\n`dataplane/src/x.rs` `tests/netns_*.rs` `make demo`\n## B\n## B\n";
    let targets: Vec<_> = links(text).into_iter().map(|(_, t)| t).collect();
    assert_eq!(targets, ["docs/a.md#b", "../p.svg", "m.md"]);
    assert_eq!(paths_in_code_font(text), [(8, "dataplane/src/x.rs".to_owned())]);
    assert_eq!(anchors(text), ["the-a-b", "b", "b-1"].map(str::to_owned).into());
}
