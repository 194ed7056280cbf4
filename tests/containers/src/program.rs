//! The programs in C that trials run in containers, each in the ways in which programs are made.
//!
//! Owns `target/programs`. They are compiled from `tests/programs` where that is; on a machine that
//! has no sources, such as a guest, they must be there already.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program, made in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its own name, which no other program has.
    pub name: &'static str,
    /// Its source, below `tests/programs`.
    source: &'static str,
    compiler: &'static str,
    flags: &'static [&'static str],
}

/// Every road to a file, by a program of glibc with its loader.
pub const ROADS_GLIBC: Program =
    Program { name: "roads-dynamic_glibc", source: "roads.c", compiler: "gcc", flags: &[] };

/// Every road to a file, by a static program of musl.
pub const ROADS_MUSL: Program = Program {
    name: "roads-static_musl",
    source: "roads.c",
    compiler: "musl-gcc",
    flags: &["-static"],
};

/// Every road to a file, by a static 32-bit program.
pub const ROADS_COMPAT: Program = Program {
    name: "roads-32_bit",
    source: "roads.c",
    compiler: "gcc",
    flags: &["-m32", "-static"],
};

/// What dies in every way.
pub const MORTAL: Program = Program {
    name: "mortal",
    source: "mortal.c",
    compiler: "gcc",
    flags: &["-static", "-pthread"],
};

/// What opens files beneath the system calls.
pub const BENEATH: Program =
    Program { name: "beneath", source: "beneath.c", compiler: "gcc", flags: &["-static"] };

/// What wants to be seen wrongly.
pub const TRICKS: Program = Program {
    name: "tricks",
    source: "tricks.c",
    compiler: "gcc",
    flags: &["-static", "-pthread"],
};

/// What asks for one file after the other.
pub const FLOOD: Program =
    Program { name: "flood", source: "flood.c", compiler: "gcc", flags: &["-static", "-O2"] };

/// All of them.
pub const PROGRAMS: [Program; 7] =
    [ROADS_GLIBC, ROADS_MUSL, ROADS_COMPAT, MORTAL, BENEATH, TRICKS, FLOOD];

/// Why there is no such program.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// Nothing can compile it.
    #[error(
        "{compiler} cannot be started to make {name} ({cause}); `cargo xtask setup` installs it"
    )]
    NoCompiler {
        /// The program.
        name: &'static str,
        /// The compiler.
        compiler: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// The compiler refused.
    #[error("{compiler} makes no {name}: {message}")]
    Refused {
        /// The program.
        name: &'static str,
        /// The compiler.
        compiler: &'static str,
        /// What it wrote first about it.
        message: String,
    },
    /// Neither the source is there, nor what was made of it.
    #[error("there is neither {} nor {}: run this in the repository", source_file.display(), made.display())]
    Absent {
        /// The source.
        source_file: PathBuf,
        /// The program.
        made: PathBuf,
    },
    /// A file or folder.
    #[error("{} cannot be made: {cause}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

impl Program {
    /// Compiles it, where its source is there, and says where it is. Takes a second: keep the answer.
    ///
    /// # Errors
    ///
    /// If it cannot be compiled, or if there is nothing to compile and nothing was made before.
    pub fn make(&self) -> Result<PathBuf, ProgramError> {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"));
        let source = tests.join("programs").join(self.source);
        let folder = tests.with_file_name("target").join("programs");
        self.make_in(&folder, &source)
    }

    fn make_in(&self, folder: &Path, source: &Path) -> Result<PathBuf, ProgramError> {
        let made = folder.join(self.name);
        if !source.exists() {
            return match made.exists() {
                true => Ok(made),
                false => Err(ProgramError::Absent { source_file: source.to_owned(), made }),
            };
        }
        fs::create_dir_all(folder).map_err(file_error(folder))?;
        // Somebody may be running the last one: it is replaced when the next one is whole.
        let begun = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)
            .map_err(file_error(folder))?
            .into_temp_path();
        let output = Command::new(self.compiler)
            .args(["-O1", "-Wall", "-Werror", "-o"])
            .arg(&begun)
            .arg(source)
            .args(self.flags)
            .output()
            .map_err(|cause| ProgramError::NoCompiler {
                name: self.name,
                compiler: self.compiler,
                cause,
            })?;
        if !output.status.success() {
            let all = String::from_utf8_lossy(&output.stderr);
            let message = all.lines().find(|line| line.contains("error"));
            let message = message.unwrap_or("it does not say why").trim().to_owned();
            return Err(ProgramError::Refused {
                name: self.name,
                compiler: self.compiler,
                message,
            });
        }
        begun.persist(&made).map_err(|error| file_error(&made)(error.error))?;
        Ok(made)
    }
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> ProgramError {
    let path = path.to_owned();
    move |cause| ProgramError::File { path, cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_compiled_where_its_source_is_and_taken_as_it_is_where_not() {
        let folder = tempfile::tempdir().unwrap();
        let made = folder.path().join("made");
        let source = folder.path().join("source.c");
        let absent = MORTAL.make_in(&made, &source).unwrap_err().to_string();
        assert!(absent.starts_with("there is neither "), "{absent}");

        fs::write(&source, "int main(void) { return 7; }").unwrap();
        let path = match MORTAL.make_in(&made, &source) {
            Err(ProgramError::NoCompiler { .. }) => return eprintln!("skipped: there is no gcc"),
            path => path.unwrap(),
        };
        assert_eq!(Command::new(&path).status().unwrap().code(), Some(7));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);

        fs::write(&source, "int main(void) { return nothing; }").unwrap();
        let refused = MORTAL.make_in(&made, &source).unwrap_err().to_string();
        assert!(refused.starts_with("gcc makes no mortal: "), "{refused}");
        assert!(refused.contains("nothing"), "{refused}");

        fs::remove_file(&source).unwrap();
        assert_eq!(MORTAL.make_in(&made, &source).unwrap(), path);
        assert_eq!(fs::read_dir(&made).unwrap().count(), 1);
    }

    #[test]
    fn no_two_programs_have_one_name() {
        let mut names = PROGRAMS.map(|program| program.name);
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }
}
