//! The files of a project in each language. The code itself stands in `plugins/examples`.

use super::embedded::{C_BINDINGS, SDK, WIT};
use super::{Language, ProjectFile, Role};

/// An example that becomes a project.
struct Example {
    /// Its name, which becomes the project's.
    name: &'static str,
    /// What it does, after `It`.
    does: &'static str,
    rust: &'static str,
    rust_test: &'static str,
    js: &'static str,
    python: &'static str,
    c: &'static str,
    /// What a container did, recorded.
    recording: &'static [u8],
    /// What the plugin makes of it, in every language, and the name of that file.
    expected: (&'static str, &'static str),
}

/// An example that stands in `plugins/examples`.
macro_rules! example {
    ($name:literal, $does:literal, $rust_test:literal, $recording:literal, $expected:literal) => {
        Example {
            name: $name,
            does: $does,
            rust: include_str!(in_examples!($name, "/rust/src/lib.rs")),
            rust_test: include_str!(in_examples!($name, "/rust/tests/", $rust_test)),
            js: include_str!(in_examples!($name, "/js/plugin.js")),
            python: include_str!(in_examples!($name, "/python/plugin.py")),
            c: include_str!(in_examples!($name, "/c/plugin.c")),
            recording: include_bytes!(in_examples!($recording)),
            expected: ($expected, include_str!(in_examples!($name, "/", $expected))),
        }
    };
}

macro_rules! in_examples {
    ($($part:literal),+) => {
        concat!("../../../plugins/examples/", $($part),+)
    };
}

const TOP_FOLDERS: Example = example!(
    "top-folders",
    "counts the files that were opened below each top folder",
    "top_folders.rs",
    "example.recording",
    "expected.json"
);
const NO_BYTECODE: Example = example!(
    "no-bytecode",
    "drops events about files by the endings of their names",
    "no_bytecode.rs",
    "script.recording",
    "expected.jsonl"
);
const EXIT_CODES: Example = example!(
    "exit-codes",
    "explains exit codes in words of your own",
    "exit_codes.rs",
    "script.recording",
    "expected.json"
);

// What projects in a language need is the same for every example.
const JS_PACKAGE: &str = include_str!(in_examples!("top-folders/js/package.json"));
const PYTHON_REQUIREMENTS: &str = include_str!(in_examples!("top-folders/python/requirements.txt"));
const C_REQUIREMENTS: &str = include_str!(in_examples!("top-folders/c/requirements.txt"));

/// The release of the SDK's bindings generator.
const WIT_BINDGEN: &str = "0.61";

impl Role {
    fn example(self) -> &'static Example {
        match self {
            Role::Reporter => &TOP_FOLDERS,
            Role::Filter => &NO_BYTECODE,
            Role::Explainer => &EXIT_CODES,
        }
    }

    /// The world of the contract that its plugins are built against.
    fn world(self) -> String {
        format!("{}-plugin", self.name())
    }
}

/// Name of the example that a project of that role is made of.
#[cfg(test)]
pub(super) fn example_name(role: Role) -> &'static str {
    role.example().name
}

/// Every file of a project.
pub(super) fn project(name: &str, role: Role, language: Language) -> Vec<ProjectFile> {
    let example = role.example();
    let mut files = match language {
        Language::Rust => rust(name, example),
        Language::Js => js(name, example),
        Language::Python => python(name, example),
        Language::C => c(name, role),
    };
    let (expected, text) = example.expected;
    files.push(ProjectFile::program("build", &script(BUILD_HEAD, build(language), name, role)));
    files.push(ProjectFile::program("test", &script(TEST_HEAD, &test(language), name, role)));
    files.push(ProjectFile::new("README.md", readme(name, role, language)));
    files.push(ProjectFile::new("example.recording", example.recording));
    files.push(ProjectFile::new(expected, renamed(text, example, name)));
    files.extend(WIT.iter().map(|(path, text)| ProjectFile::new(format!("wit/{path}"), *text)));
    files
}

/// Text of an example, under the name of the project.
fn renamed(text: &str, example: &Example, name: &str) -> String {
    text.replace(example.name, name)
        .replace(&example.name.replace('-', "_"), &name.replace('-', "_"))
        .replace(&camel(example.name), &camel(name))
}

/// `my-plugin` as the name of a type.
fn camel(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(|first| first.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    };
    name.split('-').map(word).collect()
}

fn rust(name: &str, example: &Example) -> Vec<ProjectFile> {
    let manifest = format!(
        r#"[package]
name = "{name}"
version = "0.1.0"
edition = "2024"
publish = false

[lib]
crate-type = ["cdylib", "rlib"]

[dependencies]
serde = {{ version = "1", features = ["derive"] }}
whodunit-sdk = {{ path = "vendor/whodunit-sdk" }}

[profile.release]
lto = "fat"
codegen-units = 1
# A panic is a trap, which costs the instance; its words are in the daemon's log.
panic = "abort"
strip = true

[workspace]
"#
    );
    let sdk_manifest = format!(
        r#"[package]
name = "whodunit-sdk"
description = "What whodunit plugins are written with"
version = "{}"
edition = "2024"
license = "Apache-2.0 OR MIT"
publish = false

[dependencies]
serde = {{ version = "1", features = ["derive"] }}
serde_json = "1"
wit-bindgen = {{ version = "{WIT_BINDGEN}", default-features = false, features = ["macros", "realloc"] }}
"#,
        env!("CARGO_PKG_VERSION")
    );
    let mut files = vec![
        ProjectFile::new("Cargo.toml", manifest),
        ProjectFile::new("src/lib.rs", renamed(example.rust, example, name)),
        ProjectFile::new("tests/plugin.rs", renamed(example.rust_test, example, name)),
        ProjectFile::new("vendor/whodunit-sdk/Cargo.toml", sdk_manifest),
        ProjectFile::new(".gitignore", format!("/target\n/{name}.wasm\n")),
    ];
    files
        .extend(SDK.iter().map(|(path, text)| {
            ProjectFile::new(format!("vendor/whodunit-sdk/src/{path}"), *text)
        }));
    files
}

fn js(name: &str, example: &Example) -> Vec<ProjectFile> {
    vec![
        ProjectFile::new("package.json", renamed(JS_PACKAGE, &TOP_FOLDERS, name)),
        ProjectFile::new("plugin.js", renamed(example.js, example, name)),
        ProjectFile::new(".gitignore", format!("/node_modules\n/{name}.wasm\n")),
    ]
}

fn python(name: &str, example: &Example) -> Vec<ProjectFile> {
    vec![
        ProjectFile::new("plugin.py", renamed(example.python, example, name)),
        ProjectFile::new("requirements.txt", PYTHON_REQUIREMENTS),
        ProjectFile::new(".gitignore", format!("/venv\n/{name}.wasm\n__pycache__\n")),
    ]
}

fn c(name: &str, role: Role) -> Vec<ProjectFile> {
    let (example, world) = (role.example(), role.world());
    let mut files = vec![
        ProjectFile::new("plugin.c", renamed(example.c, example, name)),
        ProjectFile::new("requirements.txt", C_REQUIREMENTS),
        ProjectFile::new(".gitignore", format!("/venv\n/build.wasm\n/{name}.wasm\n")),
    ];
    let bindings = C_BINDINGS.iter().filter(|(of, _, _)| *of == world);
    files.extend(
        bindings.map(|(_, path, bytes)| ProjectFile::new(format!("bindings/{path}"), *bytes)),
    );
    files
}

const BUILD_HEAD: &str = "Makes the component NAME.wasm.";
const TEST_HEAD: &str = "Builds the plugin, and runs it on the example.";

fn script(what: &str, commands: &str, name: &str, role: Role) -> String {
    let text = format!(
        "#!/bin/sh\n# {what}\nset -eu\ncd \"$(dirname \"$0\")\"\nwhodunit=${{WHODUNIT:-whodunit}}\n\n{commands}"
    );
    let world = role.world();
    text.replace("EXPECTED", role.example().expected.0)
        .replace("WORLD_", &world.replace('-', "_"))
        .replace("WORLD", &world)
        .replace("NAME_", &name.replace('-', "_"))
        .replace("NAME", name)
}

fn build(language: Language) -> &'static str {
    match language {
        Language::Rust => {
            "cargo build --release --target wasm32-unknown-unknown\n\
             built=${CARGO_TARGET_DIR:-target}/wasm32-unknown-unknown/release/NAME_.wasm\n\
             \"$whodunit\" plugin componentize \"$built\" -o NAME.wasm\n"
        }
        Language::Js => {
            "[ -d node_modules ] || npm install --no-audit --no-fund\n\
             npx componentize-qjs --wit wit --world WORLD --js plugin.js --stub-wasi \\\n    \
             --sync -o NAME.wasm\n"
        }
        Language::Python => {
            "if ! command -v componentize-py >/dev/null; then\n    \
             [ -d venv ] || python3 -m venv venv\n    \
             venv/bin/pip install --quiet -r requirements.txt\n    \
             PATH=\"$PWD/venv/bin:$PATH\"\nfi\n\
             componentize-py -d wit -w WORLD componentize plugin --stub-wasi -o NAME.wasm\n"
        }
        Language::C => {
            "# Any clang that knows wasm32 and has a libc for it will do: zig brings both.\n\
             if [ -z \"${WASM_CC:-}\" ]; then\n    \
             [ -d venv ] || python3 -m venv venv\n    \
             venv/bin/pip install --quiet -r requirements.txt\n    \
             WASM_CC=\"venv/bin/python -m ziglang cc --target=wasm32-wasi\"\nfi\n\
             $WASM_CC -mexec-model=reactor -Os -Wall -Wextra -Ibindings -o build.wasm plugin.c \\\n    \
             bindings/WORLD_.c bindings/WORLD__component_type.o\n\
             \"$whodunit\" plugin componentize build.wasm -o NAME.wasm\n"
        }
    }
}

fn test(language: Language) -> String {
    let native = match language {
        Language::Rust => "cargo test --quiet\n",
        Language::Js | Language::Python | Language::C => "",
    };
    format!(
        "{native}./build\n\
         \"$whodunit\" plugin run NAME.wasm --events example.recording --last | diff EXPECTED -\n"
    )
}

fn readme(name: &str, role: Role, language: Language) -> String {
    let needs = match language {
        Language::Rust => {
            "Rust with the target for WebAssembly (`rustup target add wasm32-unknown-unknown`)."
        }
        Language::Js => "Node.js and npm. `./build` installs componentize-qjs in this folder.",
        Language::Python => "Python 3.10 or newer. `./build` installs componentize-py in `venv`.",
        Language::C => {
            "Python, with which `./build` installs zig in `venv`; or a clang that knows WebAssembly, by\n\
             the variable `WASM_CC`."
        }
    };
    let (what, does) = (role.name(), role.example().does);
    let expected = role.example().expected.0;
    format!(
        "# {name}\n\n\
         A whodunit {what}. It {does}: change it.\n\n\
         ```console\n\
         $ ./test     # builds it, runs it on example.recording, compares with {expected}\n\
         $ whodunit plugin inspect {name}.wasm\n\
         $ whodunit plugin run {name}.wasm --events example.recording\n\
         ```\n\n\
         Needs: {needs}\n\n\
         `whodunit plugin inspect` prints the `[[plugin]]` table that runs it. `wit/` is the contract that\n\
         it is built against, as the daemon had it that made this project.\n"
    )
}
