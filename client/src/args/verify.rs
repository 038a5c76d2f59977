//! `client verify`: about whom, and how he is reached.

use std::ffi::OsString;
use std::path::PathBuf;

use tunnel_client::proxy::target::Target;
use tunnel_client::verify::PublicUrl;
use tunnel_common::key::DataDir;
use tunnel_common::process::Mistakes;

use super::proxy::{self, Proxy};
use crate::verify::Question;

#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// The agent's public URL: `https://<id>.<domain>`, perhaps with a port
    url: PublicUrl,
    #[command(flatten)]
    proxy: Proxy,
    /// Folder where the file of --proxy-credentials may be [default: $STATE_DIRECTORY,
    /// $XDG_STATE_HOME/client or .]
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

impl Verify {
    /// `variable` looks up an environment variable.
    pub(super) fn into_question(
        self,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Question, Mistakes> {
        let (url, mut mistakes) = (self.url, vec![]);
        let data = DataDir::chosen(self.data_dir.as_deref(), "client");
        let target = Target::new(url.host().as_str(), url.port()).to_string();
        let target = target.parse().expect("a name and a port");
        let (_, proxies) = self.proxy.chosen(&[target], &data, variable, &mut mistakes);
        if !mistakes.is_empty() {
            return Err(Mistakes(mistakes));
        }
        Ok(Question {
            url,
            dial: proxy::outward(proxies),
        })
    }
}
