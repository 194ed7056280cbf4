//! What a project is made of. That it builds and passes its own test is a trial of the integration
//! tests, where the tools of the languages are.

use std::os::unix::fs::PermissionsExt;

use super::*;

const LANGUAGES: [Language; 4] = [Language::Rust, Language::Js, Language::Python, Language::C];

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_project_has_its_name_wherever_the_example_has_its_own() {
    let folder = tempfile::tempdir().unwrap();
    for language in LANGUAGES {
        let name = format!("count-it-{language:?}").to_lowercase();
        let project = new_project(folder.path(), &name, Role::Reporter, language).unwrap();
        assert_eq!(project, folder.path().join(&name));
        let source = ["src/lib.rs", "plugin.js", "plugin.py", "plugin.c"]
            .iter()
            .map(|source| project.join(source))
            .find(|source| source.is_file())
            .unwrap();
        let text = read(&source);
        assert!(!text.contains("top-folders") && !text.contains("TopFolders"), "{text}");
        for program in ["build", "test"] {
            let path = project.join(program);
            assert!(!read(&path).contains("NAME"), "{}", read(&path));
            assert!(read(&path).contains(&format!("{name}.wasm")));
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
        }
        assert!(read(&project.join("wit/types.wit")).contains("package whodunit:plugin@"));
        assert!(project.join("example.recording").is_file());
    }
    let rust = folder.path().join("count-it-rust");
    assert!(read(&rust.join("src/lib.rs")).contains("pub struct CountItRust("));
    assert!(read(&rust.join("tests/plugin.rs")).contains("use count_it_rust::CountItRust;"));
    assert!(read(&rust.join("vendor/whodunit-sdk/src/lib.rs")).contains("export_reporter"));
    assert!(rust.join("vendor/whodunit-sdk/src/testing/deaths.rs").is_file());
    let c = folder.path().join("count-it-c/bindings");
    assert!(c.join("reporter_plugin.h").is_file());
    assert!(c.join("reporter_plugin_component_type.o").is_file());
}

#[test]
fn nothing_that_is_there_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let mine = folder.path().join("mine");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("Cargo.toml"), "precious").unwrap();
    let error = new_project(folder.path(), "mine", Role::Reporter, Language::Rust).unwrap_err();
    assert!(matches!(error, ScaffoldError::Exists { .. }), "{error}");
    assert_eq!(read(&mine.join("Cargo.toml")), "precious");
}

#[test]
fn a_name_that_no_plugin_can_have_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["", "Top", "1st", "-a", "a-", "a_b", "../up", "a/b", "a b"] {
        let error = new_project(folder.path(), name, Role::Reporter, Language::C).unwrap_err();
        assert!(matches!(error, ScaffoldError::Name { .. }), "{name:?}: {error}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_releases_of_a_project_are_those_of_this_repository() {
    let workspace = include_str!("../../../Cargo.toml");
    let line = workspace.lines().find(|line| line.starts_with("wit-bindgen = ")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let project = new_project(folder.path(), "releases", Role::Reporter, Language::Rust).unwrap();
    assert!(read(&project.join("vendor/whodunit-sdk/Cargo.toml")).contains(line));
}

#[test]
fn every_role_has_a_project_in_every_language_under_its_own_name() {
    let folder = tempfile::tempdir().unwrap();
    for role in Role::ALL {
        for language in LANGUAGES {
            let name = format!("my-{}-{language:?}", role.name()).to_lowercase();
            let project = new_project(folder.path(), &name, role, language).unwrap();
            let about = read(&project.join("README.md"));
            assert!(about.contains(&format!("A whodunit {}.", role.name())), "{about}");
            let expected = about.split_once("compares with ").unwrap().1.lines().next().unwrap();
            let (build, test) = (read(&project.join("build")), read(&project.join("test")));
            assert!(!read(&project.join(expected)).is_empty());
            assert!(test.ends_with(&format!("| diff {expected} -\n")), "{test}");
            assert!(!build.contains("WORLD") && !test.contains("EXPECTED"), "{build}{test}");
            let example = languages::example_name(role);
            for file in
                ["src/lib.rs", "tests/plugin.rs", "plugin.js", "plugin.py", "plugin.c", expected]
            {
                let text = fs::read_to_string(project.join(file)).unwrap_or_default();
                assert!(!text.contains(example), "{file}: {text}");
            }
        }
        let rust = folder.path().join(format!("my-{}-rust", role.name()));
        let (code, test) = (read(&rust.join("src/lib.rs")), read(&rust.join("tests/plugin.rs")));
        assert!(code.contains(&format!("export_{}!(My", role.name())), "{code}");
        assert!(test.contains(&format!("use my_{}_rust::My", role.name())), "{test}");
        let c = folder.path().join(format!("my-{}-c", role.name()));
        assert!(c.join(format!("bindings/{}_plugin.h", role.name())).is_file());
        assert_eq!(fs::read_dir(c.join("bindings")).unwrap().count(), 3);
    }
}
