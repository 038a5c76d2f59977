//! `server allow`, `server deny`, `server clients`: the list of agents that may register.
//!
//! They work on the file in the data folder, whether a relay runs or not; one that runs sees the
//! change by itself.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Subcommand;
use tunnel_common::escape::Escaped;
use tunnel_common::identity::Label;
use tunnel_common::key::DataDir;
use tunnel_server::admission::list_file::{self, Edited};

/// The file of the relay's own key in its data folder.
pub(crate) const KEY_FILE: &str = "relay.key";
/// The list in the data folder.
const FILE: &str = "allowed_clients";

/// What to do with the list.
#[derive(Debug, Subcommand)]
pub(crate) enum Clients {
    /// Let an agent register
    Allow {
        /// Its id, as its log and the relay's refusal show it
        id: Label,
        /// Who that is, for people who read the list
        comment: Vec<String>,
        #[command(flatten)]
        folder: Folder,
    },
    /// Let an agent register no longer: within a second its tunnels and visits end
    Deny {
        /// Its id
        id: Label,
        #[command(flatten)]
        folder: Folder,
    },
    /// Show the agents that may register
    #[command(name = "clients")]
    Show {
        #[command(flatten)]
        folder: Folder,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Folder {
    /// The relay's data folder [default: $STATE_DIRECTORY, $XDG_STATE_HOME/server or .]
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// Where the list is.
pub(crate) fn file_in(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// The command that lets an agent into the relay of this folder, all but its id. It names the folder
/// always: whoever types it may have another environment than the relay.
pub(crate) fn command_to_allow(data_dir: &Path) -> String {
    let path = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let path = path.display().to_string();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-".contains(&b);
    let quoted = if path.bytes().all(plain) {
        path
    } else {
        format!("'{}'", path.replace('\'', r"'\''"))
    };
    format!("server allow --data-dir {quoted}")
}

impl Folder {
    /// The list of the relay that keeps its data here.
    fn list(&self) -> anyhow::Result<PathBuf> {
        let data = DataDir::chosen(self.data_dir.as_deref(), "server");
        let list = file_in(data.path());
        // A list beside no relay would let nobody in anywhere. Where a folder was named it may be one
        // that a relay is yet to use.
        let is_used = list.exists() || data.path().join(KEY_FILE).exists();
        let may_be_used = self.data_dir.is_some() && data.path().is_dir();
        if !is_used && !may_be_used {
            bail!(
                "no relay keeps its data in {}; name its folder with --data-dir",
                data.path().display()
            );
        }
        Ok(list)
    }
}

impl Clients {
    /// Does it, and says on standard output what was done.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        match self {
            Self::Allow {
                id,
                comment,
                folder,
            } => {
                let list = folder.list()?;
                let said = match list_file::allow(&list, id, &one_line(&comment))? {
                    Edited::Changed => "may register now",
                    Edited::Unchanged => "might register already",
                };
                writeln!(out, "{id} {said} ({})", list.display())?;
            }
            Self::Deny { id, folder } => {
                let list = folder.list()?;
                if list_file::deny(&list, id)? == Edited::Unchanged {
                    bail!("{id} is not in {}", list.display());
                }
                let list = list.display();
                writeln!(
                    out,
                    "{id} is no longer in {list}; a relay that runs with --allow-client for it, or with \
                     --open, lets it in all the same"
                )?;
            }
            Self::Show { folder } => {
                let list = folder.list()?;
                let entries = match list_file::read(&list) {
                    Err(error) if list_file::is_missing(&error) => vec![],
                    read => read?,
                };
                for entry in entries {
                    let comment = Escaped(&entry.comment);
                    writeln!(out, "{}", format!("{}  {comment}", entry.id).trim_end())?;
                }
            }
        }
        Ok(())
    }
}

fn one_line(words: &[String]) -> String {
    words.join(" ").replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_to_allow_can_be_pasted() {
        let with = |path: &str| command_to_allow(path.as_ref());
        assert_eq!(
            with("/var/lib/relay"),
            "server allow --data-dir /var/lib/relay"
        );
        assert_eq!(with("/a b/it's"), r"server allow --data-dir '/a b/it'\''s'");
    }
}
