//! The files of a project in each language. The code itself stands in `plugins/examples`.

use super::embedded::{C_BINDINGS, SDK, WIT};
use super::{Language, ProjectFile, Role, ScaffoldError};

/// An example that becomes a project.
struct Example {
    /// Its name, which becomes the project's.
    name: &'static str,
    /// What it does, after `It`.
    does: &'static str,
    rust: &'static str,
    rust_test: &'static str,
}

/// The reporter, in every language.
const TOP_FOLDERS: Example = Example {
    name: "top-folders",
    does: "counts the files that were opened below each top folder",
    rust: include_str!("../../../plugins/examples/top-folders/rust/src/lib.rs"),
    rust_test: include_str!("../../../plugins/examples/top-folders/rust/tests/top_folders.rs"),
};
const NO_BYTECODE: Example = Example {
    name: "no-bytecode",
    does: "drops events about files by the endings of their names",
    rust: include_str!("../../../plugins/examples/no-bytecode/rust/src/lib.rs"),
    rust_test: include_str!("../../../plugins/examples/no-bytecode/rust/tests/no_bytecode.rs"),
};
const EXIT_CODES: Example = Example {
    name: "exit-codes",
    does: "explains exit codes in the words of the TOML",
    rust: include_str!("../../../plugins/examples/exit-codes/rust/src/lib.rs"),
    rust_test: include_str!("../../../plugins/examples/exit-codes/rust/tests/exit_codes.rs"),
};

const JS_PLUGIN: &str = include_str!("../../../plugins/examples/top-folders/js/plugin.js");
const PYTHON_PLUGIN: &str = include_str!("../../../plugins/examples/top-folders/python/plugin.py");
const JS_PACKAGE: &str = include_str!("../../../plugins/examples/top-folders/js/package.json");
const PYTHON_REQUIREMENTS: &str =
    include_str!("../../../plugins/examples/top-folders/python/requirements.txt");
const C_REQUIREMENTS: &str =
    include_str!("../../../plugins/examples/top-folders/c/requirements.txt");
const C_PLUGIN: &str = include_str!("../../../plugins/examples/top-folders/c/plugin.c");

/// What a busybox container did, recorded.
const RECORDING: &[u8] = include_bytes!("../../../plugins/examples/example.recording");
/// What the example makes of it, in every language.
const EXPECTED: &str = include_str!("../../../plugins/examples/top-folders/expected.json");

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
}

/// Every file of a project.
pub(super) fn project(
    name: &str,
    role: Role,
    language: Language,
) -> Result<Vec<ProjectFile>, ScaffoldError> {
    if role != Role::Reporter && language != Language::Rust {
        return Err(ScaffoldError::NoTemplate { what: role.with_article() });
    }
    let example = role.example();
    let mut files = match language {
        Language::Rust => rust(name, example),
        Language::Js => js(name),
        Language::Python => python(name),
        Language::C => c(name),
    };
    let test = test_commands(role, language);
    files.push(ProjectFile::program("build", &script(BUILD_HEAD, build_commands(language), name)));
    files.push(ProjectFile::program("test", &script(TEST_HEAD, test, name)));
    files.push(ProjectFile::new("README.md", readme(name, role, language)));
    files.push(ProjectFile::new("example.recording", RECORDING));
    if role == Role::Reporter {
        files.push(ProjectFile::new("expected.json", EXPECTED));
    }
    files.extend(WIT.iter().map(|(path, text)| ProjectFile::new(format!("wit/{path}"), *text)));
    Ok(files)
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

fn js(name: &str) -> Vec<ProjectFile> {
    vec![
        ProjectFile::new("package.json", renamed(JS_PACKAGE, &TOP_FOLDERS, name)),
        ProjectFile::new("plugin.js", renamed(JS_PLUGIN, &TOP_FOLDERS, name)),
        ProjectFile::new(".gitignore", format!("/node_modules\n/{name}.wasm\n")),
    ]
}

fn python(name: &str) -> Vec<ProjectFile> {
    vec![
        ProjectFile::new("plugin.py", renamed(PYTHON_PLUGIN, &TOP_FOLDERS, name)),
        ProjectFile::new("requirements.txt", PYTHON_REQUIREMENTS),
        ProjectFile::new(".gitignore", format!("/venv\n/{name}.wasm\n__pycache__\n")),
    ]
}

fn c(name: &str) -> Vec<ProjectFile> {
    let mut files = vec![
        ProjectFile::new("plugin.c", renamed(C_PLUGIN, &TOP_FOLDERS, name)),
        ProjectFile::new("requirements.txt", C_REQUIREMENTS),
        ProjectFile::new(".gitignore", format!("/venv\n/build.wasm\n/{name}.wasm\n")),
    ];
    files.extend(
        C_BINDINGS.iter().map(|(path, bytes)| ProjectFile::new(format!("bindings/{path}"), *bytes)),
    );
    files
}

const BUILD_HEAD: &str = "Makes the component NAME.wasm.";
const TEST_HEAD: &str = "Builds the plugin, and runs it on the example.";

fn script(what: &str, commands: &str, name: &str) -> String {
    let text = format!(
        "#!/bin/sh\n# {what}\nset -eu\ncd \"$(dirname \"$0\")\"\nwhodunit=${{WHODUNIT:-whodunit}}\n\n{commands}"
    );
    text.replace("NAME_", &name.replace('-', "_")).replace("NAME", name)
}

fn build_commands(language: Language) -> &'static str {
    match language {
        Language::Rust => {
            "cargo build --release --target wasm32-unknown-unknown\n\
             built=${CARGO_TARGET_DIR:-target}/wasm32-unknown-unknown/release/NAME_.wasm\n\
             \"$whodunit\" plugin componentize \"$built\" -o NAME.wasm\n"
        }
        Language::Js => {
            "[ -d node_modules ] || npm install --no-audit --no-fund\n\
             npx componentize-qjs --wit wit --world reporter-plugin --js plugin.js --stub-wasi \\\n    \
             --sync -o NAME.wasm\n"
        }
        Language::Python => {
            "if ! command -v componentize-py >/dev/null; then\n    \
             [ -d venv ] || python3 -m venv venv\n    \
             venv/bin/pip install --quiet -r requirements.txt\n    \
             PATH=\"$PWD/venv/bin:$PATH\"\nfi\n\
             componentize-py -d wit -w reporter-plugin componentize plugin --stub-wasi -o NAME.wasm\n"
        }
        Language::C => {
            "# Any clang that knows wasm32 and has a libc for it will do: zig brings both.\n\
             if [ -z \"${WASM_CC:-}\" ]; then\n    \
             [ -d venv ] || python3 -m venv venv\n    \
             venv/bin/pip install --quiet -r requirements.txt\n    \
             WASM_CC=\"venv/bin/python -m ziglang cc --target=wasm32-wasi\"\nfi\n\
             $WASM_CC -mexec-model=reactor -Os -Wall -Wextra -Ibindings -o build.wasm plugin.c \\\n    \
             bindings/reporter_plugin.c bindings/reporter_plugin_component_type.o\n\
             \"$whodunit\" plugin componentize build.wasm -o NAME.wasm\n"
        }
    }
}

fn test_commands(role: Role, language: Language) -> &'static str {
    match (language, role) {
        (Language::Rust, Role::Reporter) => {
            "cargo test --quiet\n./build\n\
             \"$whodunit\" plugin run NAME.wasm --events example.recording --last | diff expected.json -\n"
        }
        (Language::Rust, Role::Filter | Role::Explainer) => {
            "cargo test --quiet\n./build\n\
             \"$whodunit\" plugin run NAME.wasm --events example.recording\n"
        }
        (Language::Js | Language::Python | Language::C, _) => {
            "./build\n\
             \"$whodunit\" plugin run NAME.wasm --events example.recording --last | diff expected.json -\n"
        }
    }
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
    let compares = match role {
        Role::Reporter => ", compares with expected.json",
        Role::Filter | Role::Explainer => "",
    };
    format!(
        "# {name}\n\n\
         A whodunit {what}. It {does}: change it.\n\n\
         ```console\n\
         $ ./test     # builds it, runs it on example.recording{compares}\n\
         $ whodunit plugin inspect {name}.wasm\n\
         $ whodunit plugin run {name}.wasm --events example.recording\n\
         ```\n\n\
         Needs: {needs}\n\n\
         `whodunit plugin inspect` prints the `[[plugin]]` table that runs it. `wit/` is the contract that\n\
         it is built against, as the daemon had it that made this project.\n"
    )
}
