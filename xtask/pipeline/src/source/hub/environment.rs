//! Where Hugging Face's libraries keep their cache and token, and how they reach the hub: the environment variables of
//! `huggingface_hub/constants.py`. `environment_goldens.py` records what that file makes of some environments.

use std::io;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Error, Result, ensure};

use super::{Cache, is_commit};

const ENDPOINT: &str = "https://huggingface.co";

/// What the environment says about the hub.
pub struct Environment {
    /// The directory of the cache.
    cache: PathBuf,
    endpoint: String,
    /// The token in a variable.
    token: Option<String>,
    /// The file with a token, unless tokens are only to be sent on request.
    token_path: Option<PathBuf>,
    /// Whether nothing may be fetched.
    pub is_offline: bool,
}

impl Environment {
    /// That of this process.
    pub fn here() -> Result<Self> {
        let read = |name: &str| match env::var(name) {
            Ok(value) => Ok(Some(value)),
            Err(env::VarError::NotPresent) => Ok(None),
            Err(error @ env::VarError::NotUnicode(_)) => Err(Error::new(error).context(name.to_owned())),
        };
        let home = env::home_dir().map(|home| home.display().to_string());
        Environment::of(&read, home)
    }

    /// Reads variables with `get`. Whitespace around values does not count.
    fn of(get: &dyn Fn(&str) -> Result<Option<String>>, home: Option<String>) -> Result<Self> {
        let get = |name: &str| Ok::<_, Error>(get(name)?.map(|value| value.trim().to_owned()));
        let expand = |path: &str| -> Result<PathBuf> {
            let home = home.as_deref();
            // A variable that is not set stays as it is written.
            let path = shellexpand::full_with_context(path, || home, &get);
            let path = path.map_err(|error| error.cause.context(error.var_name))?;
            Ok(PathBuf::from(&*path))
        };
        let or =
            |value: Option<String>, default: &Path| value.unwrap_or_else(|| default.display().to_string());
        let caches = get("XDG_CACHE_HOME")?.unwrap_or_else(|| "~/.cache".to_owned());
        let home_of_all = expand(&or(get("HF_HOME")?, &Path::new(&caches).join("huggingface")))?;
        let old_name = or(get("HUGGINGFACE_HUB_CACHE")?, &home_of_all.join("hub"));
        let cache = expand(&get("HF_HUB_CACHE")?.unwrap_or(old_name))?;
        let token_path = expand(&or(get("HF_TOKEN_PATH")?, &home_of_all.join("token")))?;

        let either =
            |name, other| Ok::<_, Error>(get(name)?.filter(|value| !value.is_empty()).or(get(other)?));
        let is_true = |value: Option<String>| {
            value.is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str()))
        };
        let endpoint = get("HF_ENDPOINT")?.filter(|value| !value.is_empty());
        let endpoint =
            endpoint.map_or(ENDPOINT.to_owned(), |endpoint| endpoint.trim_end_matches('/').to_owned());
        let sends_none = is_true(get("HF_HUB_DISABLE_IMPLICIT_TOKEN")?);
        let token = either("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")?.and_then(|token| cleaned(&token));
        Ok(Environment {
            cache,
            endpoint,
            token: token.filter(|_| !sends_none),
            token_path: Some(token_path).filter(|_| !sends_none),
            is_offline: is_true(either("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")?),
        })
    }

    /// The cache, which other programs share.
    pub fn cache(&self) -> Cache {
        Cache::new(self.cache.clone())
    }

    /// The address of the hub, without a slash at its end.
    pub fn endpoint(&self) -> Result<&str> {
        let is_address = ["https://", "http://"].iter().any(|scheme| self.endpoint.starts_with(scheme));
        ensure!(is_address, "HF_ENDPOINT is {:?}, which does not begin with https://", self.endpoint);
        Ok(&self.endpoint)
    }

    /// The token to send, if there is one.
    pub fn token(&self) -> Result<Option<String>> {
        let (token, place) = match (&self.token, &self.token_path) {
            (Some(token), _) => (Some(token.clone()), "HF_TOKEN".to_owned()),
            (None, None) => (None, String::new()),
            (None, Some(path)) => match fs::read_to_string(path) {
                Ok(text) => (cleaned(&text), path.display().to_string()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => (None, String::new()),
                Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
            },
        };
        // The client's own message would show the token.
        let is_sound = |token: &String| token.bytes().all(|byte| byte.is_ascii_graphic());
        ensure!(
            token.iter().all(is_sound),
            "what is in {place} is no token: tokens have letters, digits and `_`"
        );
        Ok(token)
    }
}

/// A token without line breaks, and whitespace around it.
fn cleaned(token: &str) -> Option<String> {
    let token = token.replace(['\r', '\n'], "");
    Some(token.trim().to_owned()).filter(|token| !token.is_empty())
}

/// The commit that the cache knows for a branch or tag.
pub fn commit_of(reference: &Path) -> Option<String> {
    let text = fs::read_to_string(reference).ok()?;
    Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use serde::Deserialize;

    use super::Environment;

    /// What `huggingface_hub` makes of an environment.
    #[derive(Deserialize)]
    struct Golden {
        environment: BTreeMap<String, String>,
        cache: String,
        endpoint: String,
        offline: bool,
        token_path: String,
        token: Option<String>,
    }

    #[test]
    fn the_environment_is_read_as_hugging_faces_library_reads_it() {
        let goldens: Vec<Golden> =
            serde_json::from_str(include_str!("environment_goldens.json")).expect("JSON");
        assert!(goldens.len() > 30);
        for golden in goldens {
            let environment = |name: &str| Ok(golden.environment.get(name).cloned());
            let home = golden.environment.get("HOME").cloned();
            let found = Environment::of(&environment, home).expect("sound");
            let case = &golden.environment;
            assert_eq!(found.cache, Path::new(&golden.cache), "{case:?}");
            assert_eq!(found.endpoint, golden.endpoint, "{case:?}");
            assert_eq!(found.is_offline, golden.offline, "{case:?}");
            assert_eq!(found.token, golden.token, "{case:?}");
            if let Some(path) = &found.token_path {
                assert_eq!(path, Path::new(&golden.token_path), "{case:?}");
            }
        }
    }

    /// Where the library takes whitespace for part of a path, this program does not.
    #[test]
    fn whitespace_around_values_does_not_count() {
        let environment = |name: &str| {
            let value = match name {
                "HF_HOME" => " /data/hf\n",
                "HF_ENDPOINT" => "https://mirror/ \n",
                "HF_HUB_OFFLINE" => " 1\n",
                _ => return Ok(None),
            };
            Ok(Some(value.to_owned()))
        };
        let found = Environment::of(&environment, None).expect("sound");
        assert_eq!(found.cache, Path::new("/data/hf/hub"));
        assert_eq!((found.endpoint.as_str(), found.is_offline), ("https://mirror", true));
    }
}
