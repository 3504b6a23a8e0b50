//! The rules of the house that a machine can check.
//!
//! The library has three layers, and imports point downwards only:
//!
//! ```text
//!  control   daemon  state  server  engine  api  config   may block, allocate, log; never on a worker
//!     │
//!  effects   worker ─ port ─ netlink ─ netns ─ sys      call the kernel; clock
//!     │
//!  pure      forward ─┬ bridge ─ fdb ─┬ wire    no I/O, no clock, no threads, no log, no unsafe
//!            snapshot │               │
//!                     └ offload ─ frame         (counters, tick, index: leaves that all use)
//! ```
//!
//! What is read is the source without comments, literals and test code: a sentence about `unwrap` breaks no rule.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Pure,
    Effects,
    Control,
}

use Layer::{Control, Effects, Pure};

/// Every module of `dataplane/src`, its layer, and the modules of its own layer that it must not know, because they own
/// what it is to stay ignorant of. `ALL` of a layer means: it imports nothing of the crate.
const MODULES: &[(&str, Layer, &[&str])] = &[
    ("wire", Pure, ALL),
    ("tick", Pure, ALL),
    ("index", Pure, ALL),
    ("counters", Pure, ALL),
    ("frame", Pure, &["counters", "tick", "fdb", "bridge", "overlay", "offload", "snapshot", "forward"]),
    ("fdb", Pure, &["frame", "bridge", "overlay", "offload", "snapshot", "forward"]),
    ("bridge", Pure, &["overlay", "offload", "forward"]),
    ("overlay", Pure, &["fdb", "bridge", "snapshot", "forward"]),
    ("offload", Pure, &["fdb", "bridge", "overlay", "snapshot", "forward"]),
    ("snapshot", Pure, &["forward"]),
    ("forward", Pure, &[]),
    ("clock", Effects, &["sys", "port", "netlink", "worker"]),
    ("netns", Effects, &["clock", "port", "netlink", "worker"]),
    ("sys", Effects, &["clock", "netns", "port", "netlink", "worker"]),
    ("port", Effects, &["worker", "fdb", "snapshot"]),
    ("netlink", Effects, &["port", "worker", "frame", "fdb", "bridge", "offload", "forward"]),
    ("worker", Effects, &["netlink"]),
    ("config", Control, &["engine", "api", "server", "sys", "port", "netlink", "worker"]),
    ("api", Control, &["engine", "server", "sys", "port", "netlink", "worker"]),
    ("engine", Control, &["server", "daemon"]),
    ("server", Control, &[]),
    ("state", Control, &["server", "daemon"]),
    ("daemon", Control, &[]),
];

const ALL: &[&str] = &["*"];

/// What a pure module must not say, and why.
const IMPURE: &[(&str, &str)] = &[
    ("std::fs", "opens files"),
    ("std::net::Tcp", "opens sockets"),
    ("std::net::Udp", "opens sockets"),
    ("std::thread", "starts threads"),
    ("std::process", "starts processes"),
    ("std::env", "reads the environment"),
    ("Instant::now", "reads the clock; time comes in as a Tick"),
    ("SystemTime", "reads the clock; time comes in as a Tick"),
    ("print!", "writes to the terminal"),
    ("println!", "writes to the terminal"),
    ("eprint!", "writes to the terminal"),
    ("eprintln!", "writes to the terminal"),
    ("tracing", "logs; what happens to a frame is counted"),
    ("libc", "calls the kernel"),
    ("rustix", "calls the kernel"),
    ("socket2", "calls the kernel"),
    ("mio", "calls the kernel"),
    (".unwrap()", "panics"),
    (".expect(", "panics"),
    ("panic!", "panics"),
    ("unreachable!", "panics"),
];

/// Where a pure module may say one of these after all: file, words, reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// A file longer than this holds more than one concept.
const LINES_MAX: usize = 800;

#[test]
fn imports_point_downwards() {
    let library = Library::read();
    let mut wrong = String::new();
    for (module, imports) in &library.imports {
        let Some(&(_, layer, not)) = MODULES.iter().find(|(name, ..)| name == module) else {
            let _ = writeln!(wrong, "{module}: unknown; give it a layer in MODULES of tests/house.rs");
            continue;
        };
        for (import, place) in imports {
            let Some(&(_, below, _)) = MODULES.iter().find(|(name, ..)| name == import) else {
                let _ = writeln!(
                    wrong,
                    "{place}: crate::{import} is not a module; name the module it comes from"
                );
                continue;
            };
            if below > layer {
                let _ = writeln!(
                    wrong,
                    "{place}: {module} ({layer:?}) imports {import} ({below:?}), which is above it"
                );
            } else if not == ALL {
                let _ = writeln!(
                    wrong,
                    "{place}: {module} is to know nothing of the crate, but imports {import}"
                );
            } else if not.contains(&import.as_str()) {
                let _ = writeln!(wrong, "{place}: {module} is to know nothing of {import}, but imports it");
            }
        }
    }
    assert!(wrong.is_empty(), "imports that point the wrong way:\n{wrong}");
}

#[test]
fn super_stays_inside_its_module() {
    let mut wrong = String::new();
    for file in Library::read().files {
        for line in lines_with(&file.code, &"super::".repeat(file.depth)) {
            let _ = writeln!(wrong, "{}:{line}", file.name);
        }
    }
    assert!(
        wrong.is_empty(),
        "`super::` that leaves its module, where imports are not seen; write `crate::`:\n{wrong}"
    );
}

#[test]
fn imports_make_no_circle() {
    let library = Library::read();
    let mut left: BTreeMap<&str, BTreeSet<&str>> = library
        .imports
        .iter()
        .map(|(module, imports)| (module.as_str(), imports.keys().map(String::as_str).collect()))
        .collect();
    // Takes away what imports nothing (any more) until nothing changes; what then is left imports itself.
    loop {
        let leaves: Vec<&str> =
            left.iter().filter(|(_, i)| i.iter().all(|i| !left.contains_key(i))).map(|(&m, _)| m).collect();
        if leaves.is_empty() {
            break;
        }
        left.retain(|m, _| !leaves.contains(m));
    }
    let mut circle = String::new();
    for (module, imports) in &left {
        let back: Vec<_> = imports.iter().filter(|i| left.contains_key(*i)).collect();
        let _ = writeln!(circle, "{module} imports {back:?}");
    }
    assert!(circle.is_empty(), "modules that import each other in a circle, or use one that does:\n{circle}");
}

#[test]
fn pure_modules_are_pure() {
    let mut wrong = String::new();
    for file in Library::read().files {
        if !MODULES.iter().any(|&(name, layer, _)| layer == Pure && name == file.module) {
            continue;
        }
        for (words, why) in IMPURE {
            if EXCEPTIONS.iter().any(|&(name, excepted, _)| name == file.name && excepted == *words) {
                continue;
            }
            for line in lines_with(&file.code, words) {
                let _ = writeln!(wrong, "{}:{line}: `{words}`: {why}", file.name);
            }
        }
    }
    assert!(wrong.is_empty(), "in the pure layer:\n{wrong}");
}

#[test]
fn every_exception_is_still_needed() {
    let files = Library::read().files;
    for (name, words, why) in EXCEPTIONS {
        let file = files.iter().find(|f| f.name == *name).unwrap_or_else(|| panic!("{name}: no such file"));
        assert!(!why.is_empty(), "{name}: an exception has a reason");
        assert!(
            !lines_with(&file.code, words).is_empty(),
            "{name} does not say `{words}`; delete the exception"
        );
    }
}

#[test]
fn unsafe_is_in_sys_alone() {
    let mut wrong = String::new();
    for path in files_below(&root(), "rs") {
        let name = relative(&path);
        if !name.contains("src/") || name.starts_with("dataplane/src/sys/") {
            continue;
        }
        for line in lines_with(&code(&read(&path)), "unsafe") {
            let _ = writeln!(wrong, "{name}:{line}");
        }
    }
    assert!(wrong.is_empty(), "`unsafe` outside dataplane/src/sys/:\n{wrong}");
}

#[test]
fn no_file_is_longer_than_a_concept() {
    let mut wrong = String::new();
    for path in files_below(&root(), "rs") {
        let lines = read(&path).lines().count();
        if lines > LINES_MAX {
            let _ = writeln!(wrong, "{}: {lines} lines", relative(&path));
        }
    }
    assert!(wrong.is_empty(), "longer than {LINES_MAX} lines; split by concept:\n{wrong}");
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let path_of_builder = concat!("/wo", "rk/"); // in two parts, or this file would break its own rule
    let mut wrong = String::new();
    for path in files_below(&root(), "") {
        let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let Ok(text) = String::from_utf8(bytes) else { continue };
        for (at, line) in (1..).zip(text.lines()) {
            if line.contains(path_of_builder) {
                let _ = writeln!(wrong, "{}:{at}: {}", relative(&path), line.trim());
            }
        }
    }
    assert!(wrong.is_empty(), "paths that exist on the machine of one builder only:\n{wrong}");
}

/// The sources of `dataplane/src`, without `main.rs` and `lib.rs`, which stand above the layers.
struct Library {
    files: Vec<Source>,
    /// Module → imported module → the first place that imports it.
    imports: BTreeMap<String, BTreeMap<String, String>>,
}

struct Source {
    /// Path from the root of the repository.
    name: String,
    /// The module of the crate that the file belongs to.
    module: String,
    /// How many times `super` is the crate.
    depth: usize,
    code: String,
}

impl Library {
    fn read() -> Self {
        let top = root().join("dataplane/src");
        let paths = files_below(&top, "rs");
        assert!(!paths.is_empty(), "no sources in {}", top.display());
        let tests: BTreeSet<PathBuf> = paths.iter().flat_map(|p| test_files(p)).collect();
        let mut library = Self { files: Vec::new(), imports: BTreeMap::new() };
        for path in paths.iter().filter(|p| !tests.iter().any(|t| p.starts_with(t) || *p == t)) {
            let within: Vec<_> = path.strip_prefix(&top).expect("below it").iter().collect();
            let module = within[0].to_str().expect("UTF-8").trim_end_matches(".rs").to_owned();
            if module == "main" || module == "lib" {
                continue;
            }
            // `super` that often is the crate: once from a.rs and a/mod.rs, twice from a/b.rs.
            let depth = within.len() - usize::from(path.ends_with("mod.rs"));
            let file = Source { name: relative(path), module, depth, code: code(&read(path)) };
            let imports = library.imports.entry(file.module.clone()).or_default();
            for (line, import) in imports_of(&file.code) {
                if import != file.module {
                    imports.entry(import).or_insert_with(|| format!("{}:{line}", file.name));
                }
            }
            library.files.push(file);
        }
        library
    }
}

/// The modules that code takes from `crate`, each with its line.
fn imports_of(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let line = line_of(code, at);
        let after = code[at + "crate::".len()..].trim_start();
        match after.strip_prefix('{') {
            None => found.push((line, word(after))),
            Some(group) => found.extend(first_words(group).into_iter().map(|w| (line, w))),
        }
    }
    found
}

/// The first word of each item of a `use` group that was opened just before `group`.
fn first_words(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut words) = (0, true, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            c if start && depth == 0 && !c.is_whitespace() => {
                words.push(word(&group[at..]));
                start = false;
            }
            _ => {}
        }
    }
    words
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text[..at].matches('\n').count()
}

/// The lines where `words` stand in `code` as words of their own.
fn lines_with(code: &str, words: &str) -> Vec<usize> {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(words)
        .filter(|&(at, _)| !(words.starts_with(part_of_name) && code[..at].ends_with(part_of_name)))
        .filter(|&(at, _)| {
            // `std::net::Tcp` is meant to find `std::net::TcpStream`.
            let open = words.ends_with("Tcp") || words.ends_with("Udp") || !words.ends_with(part_of_name);
            open || !code[at + words.len()..].starts_with(part_of_name)
        })
        .map(|(at, _)| line_of(code, at))
        .collect()
}

/// The source without comments, the contents of literals, and items under `#[cfg(test)]`; lines keep their numbers.
fn code(source: &str) -> String {
    without_tests(&without_text(source))
}

fn without_text(source: &str) -> String {
    let s: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut i = 0;
    while i < s.len() {
        let end = match s[i] {
            '/' if s.get(i + 1) == Some(&'/') => until(&s, i, |s, j| s[j] == '\n'),
            '/' if s.get(i + 1) == Some(&'*') => block_comment(&s, i),
            'r' if !follows_name(&s, i) => raw_string(&s, i),
            '"' => 1 + until(&s, i + 1, |s, j| s[j] == '"' && !escaped(s, j)),
            '\'' if s.get(i + 1) == Some(&'\\') => 1 + until(&s, i + 3, |s, j| s[j] == '\''),
            '\'' if s.get(i + 2) == Some(&'\'') => i + 3, // not a lifetime
            _ => i,
        };
        if end == i {
            out.push(s[i]);
            i += 1;
        } else {
            out.push('"'); // something stood here: `f("a")` and `f()` stay different
            out.extend(s[i..end.min(s.len())].iter().filter(|&&c| c == '\n'));
            i = end;
        }
    }
    out
}

fn until(s: &[char], from: usize, stop: impl Fn(&[char], usize) -> bool) -> usize {
    (from..s.len()).find(|&j| stop(s, j)).unwrap_or(s.len())
}

fn escaped(s: &[char], at: usize) -> bool {
    s[..at].iter().rev().take_while(|&&c| c == '\\').count() % 2 == 1
}

fn follows_name(s: &[char], at: usize) -> bool {
    // `br"…"` is a raw string as well; its `b` is left in the code and does no harm.
    at > 0 && s[at - 1] != 'b' && (s[at - 1].is_alphanumeric() || s[at - 1] == '_')
}

fn block_comment(s: &[char], from: usize) -> usize {
    let (mut depth, mut j) = (0, from);
    while j < s.len() {
        match (s[j], s.get(j + 1)) {
            ('/', Some('*')) => (depth, j) = (depth + 1, j + 2),
            ('*', Some('/')) => (depth, j) = (depth - 1, j + 2),
            _ => j += 1,
        }
        if depth == 0 {
            break;
        }
    }
    j
}

/// Where a raw string that begins at `from` ends; `from` if none begins there.
fn raw_string(s: &[char], from: usize) -> usize {
    let hashes = s[from + 1..].iter().take_while(|&&c| c == '#').count();
    if s.get(from + 1 + hashes) != Some(&'"') {
        return from;
    }
    let close =
        |s: &[char], j: usize| s[j] == '"' && s[j + 1..].iter().take_while(|&&c| c == '#').count() >= hashes;
    until(s, from + 2 + hashes, close) + 1 + hashes
}

fn without_tests(code: &str) -> String {
    if code.contains("#![cfg(test)]") {
        return String::new();
    }
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        out.push_str(&rest[..at]);
        let end = at + item_end(&rest[at..]);
        out.extend(rest[at..end].chars().filter(|&c| c == '\n'));
        rest = &rest[end..];
    }
    out + rest
}

/// Where the item that begins with its attributes at the start of `item` ends: after its `;`, or its closing brace.
fn item_end(item: &str) -> usize {
    let mut depth = 0;
    for (at, c) in item.char_indices() {
        match c {
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => {
                depth -= 1;
                if depth == 0 && c == '}' {
                    return at + 1;
                }
            }
            ';' | ',' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    item.len()
}

/// The files that `#[cfg(test)] mod name;` in `path` names: `name.rs`, and the directory `name`.
fn test_files(path: &Path) -> Vec<PathBuf> {
    let code = without_text(&read(path));
    let stem = path.file_stem().and_then(|s| s.to_str()).expect("a name");
    let parent = path.parent().expect("in a directory");
    let dir = if ["mod", "lib", "main"].contains(&stem) { parent.to_owned() } else { parent.join(stem) };
    code.match_indices("#[cfg(test)]")
        .map(|(at, _)| code[at..at + item_end(&code[at..])].trim_end())
        .filter_map(|item| {
            item.strip_suffix(';')?.rsplit_once("mod ").map(|(_, name)| name.trim().to_owned())
        })
        .flat_map(|name| [dir.join(format!("{name}.rs")), dir.join(name)])
        .collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The files below `dir` whose names end in `.extension` (all, if that is empty), in order; without what git or a build made.
fn files_below(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let path = entry.expect("a directory entry").path();
            let name = path.file_name().unwrap_or_default();
            if path.is_dir() {
                if name != "target" && name != ".git" && name != "artifacts" {
                    left.push(path);
                }
            } else if path.is_file()
                && name != ".git"
                && (extension.is_empty() || path.extension().is_some_and(|e| e == extension))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn comments_literals_and_tests_are_not_code() {
    let source = r###"
        use crate::wire::Vid; // crate::server
        /* crate::engine /* nested */ crate::api */
        let text = "crate::config \" unsafe"; let raw = r#"crate::sys " unsafe"#; let c = '"'; let q = '\'';
        fn f<'a>(x: &'a str) -> u8 { b'"' }
        use crate::{fdb::{Fdb, Learn}, tick::Tick,
            bridge};
        #[cfg(test)]
        mod tests { use crate::worker::Worker; fn g() { x.unwrap() } }
        #[cfg(test)]
        mod more;
        fn last() { crate::index::PortIdx(0); not_crate::port }
    "###;
    let code = code(source);
    let imports: Vec<String> = imports_of(&code).into_iter().map(|(_, m)| m).collect();
    assert_eq!(imports, ["wire", "fdb", "tick", "bridge", "index"]);
    assert_eq!(lines_with(&code, "unsafe"), [] as [usize; 0]);
    assert_eq!(lines_with(&code, ".unwrap()"), [] as [usize; 0]);
    assert_eq!(lines_with(&code, "last"), [12], "lines keep their numbers");
}

#[test]
fn forbidden_words_are_found() {
    let code = code(
        "let a = b.unwrap();\nuse std::net::TcpStream;\nformat!(\"\"); sprint!();\nunsafe_code; unsafe { }\n",
    );
    assert_eq!(lines_with(&code, ".unwrap()"), [1]);
    assert_eq!(lines_with(&code, "std::net::Tcp"), [2]);
    assert_eq!(lines_with(&code, "print!"), [] as [usize; 0]);
    assert_eq!(lines_with(&code, "unsafe"), [4]);
}
