//! What a process runs, put together from what `/proc` said at its exec and from the files that were opened for it.
//!
//! A file event has no time, but it has its place among the files opened for an exec; and a file may be opened for an exec
//! that then fails. So a program is believed only where the exec is told as well, and a dynamic one only where its loader
//! was opened next.

use std::sync::{Arc, OnceLock};

use attestation::statement::Confidence;

use super::program::{Executable, Form};

/// One program in one process, shared with the children that were forked while it ran. It is filled in when it is known.
#[derive(Debug, Default)]
pub(super) struct Image {
    /// What `/proc` said at the exec: true, unless there was another exec before it was asked.
    asked: OnceLock<Arc<Executable>>,
    /// What was opened for it, and how sure that is.
    opened: OnceLock<(Arc<Executable>, Confidence)>,
    cmdline: OnceLock<String>,
}

impl Image {
    pub(super) fn asked(exe: Option<Arc<Executable>>, cmdline: Option<String>) -> Self {
        let image = Self::default();
        image.say(exe, cmdline);
        image
    }

    /// What `/proc` says now; the first word counts.
    pub(super) fn say(&self, exe: Option<Arc<Executable>>, cmdline: Option<String>) {
        if let Some(exe) = exe {
            self.asked.get_or_init(|| exe);
        }
        if let Some(cmdline) = cmdline {
            self.cmdline.get_or_init(|| cmdline);
        }
    }

    pub(super) fn was_asked(&self) -> bool {
        self.asked.get().is_some()
    }

    /// The executable, and how sure that is.
    pub(super) fn exe(&self) -> Option<(&Arc<Executable>, Confidence)> {
        let asked = self.asked.get().map(|exe| (exe, Confidence::High));
        let opened = self.opened.get().map(|(exe, sure)| (exe, *sure));
        match (asked, opened) {
            (Some((asked, _)), Some((opened, Confidence::High))) if !asked.is_same_file(opened) => {
                Some((opened, Confidence::High))
            }
            // It was gone before its file could be looked at: what was opened is the same one, and was.
            (Some((asked, sure)), Some((opened, _)))
                if asked.identity.is_none() && asked.is_same_file(opened) =>
            {
                Some((opened, sure))
            }
            // How `/proc` shows it: the name by which a file was removed meanwhile says so.
            (Some(asked), _) => Some(asked),
            (None, opened) => opened,
        }
    }

    /// The executable as a file that can be read again: by its handle, where that was told.
    pub(super) fn file(&self) -> Option<&Arc<Executable>> {
        let (exe, _) = self.exe()?;
        let opened = self.opened.get().map(|(opened, _)| opened);
        Some(
            opened
                .filter(|opened| opened.is_same_file(exe))
                .unwrap_or(exe),
        )
    }

    pub(super) fn cmdline(&self) -> Option<&str> {
        self.cmdline.get().map(String::as_str)
    }
}

/// A program as the files opened for it tell.
#[derive(Clone, Debug)]
struct Program {
    exe: Arc<Executable>,
    /// Index of its last file.
    last: usize,
    sure: Confidence,
}

/// Gives images the programs that were opened for them, as far as that is clear. Returns from which opened file on each image
/// is what runs.
pub(super) fn pair(opened: &[Arc<Executable>], images: &[Arc<Image>]) -> Vec<(usize, Arc<Image>)> {
    let all = programs(opened);
    let confirmed: Vec<Program> = all
        .iter()
        .filter(|program| program.sure != Confidence::Low)
        .cloned()
        .collect();
    let chosen = if confirmed.len() == images.len() {
        &confirmed
    } else {
        &all
    };
    if chosen.len() == images.len() {
        return chosen
            .iter()
            .zip(images)
            .map(|(program, image)| {
                let sure = program.sure.max(Confidence::Medium);
                image
                    .opened
                    .get_or_init(|| (Arc::clone(&program.exe), sure));
                (program.last, Arc::clone(image))
            })
            .collect();
    }
    pair_some(&all, images)
}

/// Where execs failed, or ran what lies where nothing is watched: from the last on, what `/proc` confirms, and for the last
/// exec, should nothing else be known of it, what was opened last.
fn pair_some(programs: &[Program], images: &[Arc<Image>]) -> Vec<(usize, Arc<Image>)> {
    let mut left = programs;
    let mut pairs = Vec::new();
    for (back, image) in images.iter().rev().enumerate() {
        let found = match image.asked.get() {
            Some(asked) => left
                .iter()
                .rposition(|program| program.exe.is_same_file(asked)),
            None if back == 0 && programs.len() > images.len() => left.len().checked_sub(1),
            // One program run again and again is opened once, as far as the kernel tells.
            None if programs.len() == 1 => Some(0),
            None => None,
        };
        let Some(program) = found.and_then(|index| left.get(index)) else {
            continue;
        };
        if image.asked.get().is_none() {
            image
                .opened
                .get_or_init(|| (Arc::clone(&program.exe), Confidence::Low));
        }
        pairs.push((program.last, Arc::clone(image)));
        if programs.len() > 1 {
            left = left.get(..found.unwrap_or(0)).unwrap_or_default();
        }
    }
    pairs.reverse();
    pairs
}

/// The programs among files in the order in which they were opened.
fn programs(opened: &[Arc<Executable>]) -> Vec<Program> {
    let mut programs = Vec::new();
    let mut seen_loader = false;
    let mut index = 0;
    while let Some(exe) = opened.get(index) {
        let next = opened.get(index + 1);
        let (files, sure) = match exe.form {
            Form::Script => (1, None),
            Form::Whole => (1, Some(Confidence::High)),
            Form::Dynamic(loader) => match next.and_then(|next| is_loader(next, loader)) {
                Some(sure) => {
                    seen_loader = true;
                    (2, Some(sure))
                }
                // The kernel merges what the same process opens again: then its loader stands further ahead. Else this exec
                // failed before its loader was opened.
                None => (1, seen_loader.then_some(Confidence::Low)),
            },
            Form::Unknown => {
                let loader = next.and_then(|next| is_loader(next, None));
                (1 + usize::from(loader.is_some()), Some(Confidence::Medium))
            }
        };
        if let Some(sure) = sure {
            programs.push(Program {
                exe: Arc::clone(exe),
                last: index + files - 1,
                sure,
            });
        }
        index += files;
    }
    programs
}

/// Whether a file is the loader of the one opened before it, and how sure that is.
fn is_loader(file: &Executable, expected: Option<(u64, u64)>) -> Option<Confidence> {
    let place = file
        .identity
        .map(|identity| (identity.device, identity.inode));
    match expected {
        Some(_) if place == expected => Some(Confidence::High),
        // In another root the loader is another file.
        _ => (file.form == Form::Whole).then_some(Confidence::Medium),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::program::Identity;
    use super::*;

    const LOADER: (u64, u64) = (1, 1);

    pub(in crate::actor) fn file(inode: u64, form: Form) -> Arc<Executable> {
        Arc::new(Executable {
            path: format!("/bin/{inode}"),
            identity: Some(Identity {
                device: 1,
                inode,
                size: 1,
                changed: (1, 0),
            }),
            handle: None,
            form,
        })
    }

    fn dynamic(inode: u64) -> Arc<Executable> {
        file(inode, Form::Dynamic(Some(LOADER)))
    }

    fn loader() -> Arc<Executable> {
        file(1, Form::Whole)
    }

    fn images(asked: &[Option<Arc<Executable>>]) -> Vec<Arc<Image>> {
        asked
            .iter()
            .map(|exe| Arc::new(Image::asked(exe.clone(), None)))
            .collect()
    }

    fn told(image: &Image) -> Option<(&str, Confidence)> {
        image.exe().map(|(exe, sure)| (exe.path.as_str(), sure))
    }

    #[test]
    fn a_script_its_interpreter_and_its_loader_are_one_program() {
        let opened = [
            file(5, Form::Script),
            dynamic(6),
            loader(),
            file(7, Form::Whole),
        ];
        let images = images(&[None, None]);
        let pairs = pair(&opened, &images);
        assert_eq!(told(&images[0]), Some(("/bin/6", Confidence::High)));
        assert_eq!(told(&images[1]), Some(("/bin/7", Confidence::High)));
        assert_eq!(pairs.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [2, 3]);
    }

    /// An argument list that is too long makes an exec fail after its file was opened: it must not lend its name.
    #[test]
    fn a_failed_exec_is_no_program() {
        let images = images(&[None]);
        pair(&[dynamic(6), loader(), dynamic(9)], &images);
        assert_eq!(told(&images[0]), Some(("/bin/6", Confidence::High)));
        let images = self::images(&[None]);
        pair(&[dynamic(9), dynamic(6), loader()], &images);
        assert_eq!(told(&images[0]), Some(("/bin/6", Confidence::High)));
    }

    #[test]
    fn a_failed_exec_of_a_whole_program_makes_it_a_guess_unless_proc_knows() {
        let opened = [file(6, Form::Whole), file(9, Form::Whole)];
        let unknown = images(&[None]);
        pair(&opened, &unknown);
        assert_eq!(
            told(&unknown[0]).map(|(_, sure)| sure),
            Some(Confidence::Low)
        );
        let known = images(&[Some(file(6, Form::Unknown))]);
        let pairs = pair(&opened, &known);
        assert_eq!(told(&known[0]), Some(("/bin/6", Confidence::High)));
        assert_eq!(pairs[0].0, 0);
    }

    #[test]
    fn a_loader_that_was_merged_into_an_earlier_open_leaves_some_doubt() {
        let opened = [dynamic(6), loader(), dynamic(7)];
        let images = images(&[None, None]);
        pair(&opened, &images);
        assert_eq!(told(&images[0]), Some(("/bin/6", Confidence::High)));
        assert_eq!(told(&images[1]), Some(("/bin/7", Confidence::Medium)));
    }

    #[test]
    fn an_exec_whose_file_nobody_saw_is_unknown() {
        let images = images(&[None, Some(dynamic(6))]);
        pair(&[dynamic(6), loader()], &images);
        assert_eq!(told(&images[1]), Some(("/bin/6", Confidence::High)));
        let images = self::images(&[None]);
        pair(&[], &images);
        assert_eq!(told(&images[0]), None);
    }

    #[test]
    fn what_was_opened_counts_where_proc_was_asked_after_the_next_exec() {
        let opened = [dynamic(6), loader(), file(7, Form::Whole)];
        let images = images(&[Some(file(7, Form::Unknown)), Some(file(7, Form::Unknown))]);
        pair(&opened, &images);
        assert_eq!(told(&images[0]), Some(("/bin/6", Confidence::High)));
        assert_eq!(told(&images[1]), Some(("/bin/7", Confidence::High)));
    }
}
