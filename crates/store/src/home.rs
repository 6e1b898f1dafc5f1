//! Where store and cache lie.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::StoreError;

/// The environment values that decide the place; the caller reads them.
#[derive(Clone, Debug, Default)]
pub struct HomeEnv {
    /// `AMIFORGE_HOME`: store and cache both lie below it.
    pub amiforge_home: Option<OsString>,
    /// `XDG_DATA_HOME`.
    pub xdg_data_home: Option<OsString>,
    /// `XDG_CACHE_HOME`.
    pub xdg_cache_home: Option<OsString>,
    /// `HOME`.
    pub home: Option<OsString>,
}

/// The two places on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// Directory of the store; holds `version` and `v1/`.
    pub store: PathBuf,
    /// Directory of the cache of downloads; holds `v1/`. Everything in it can be fetched again.
    pub cache: PathBuf,
}

impl Home {
    /// `AMIFORGE_HOME/{store,cache}`, else `XDG_DATA_HOME/amiforge/store` and
    /// `XDG_CACHE_HOME/amiforge/cache`, these two defaulting to `~/.local/share` and `~/.cache`. As the XDG
    /// base directory specification 0.8 has it, empty and relative XDG values count as unset; a
    /// relative `AMIFORGE_HOME` is an error, since guessing would put a store into any folder.
    pub fn resolve(env: &HomeEnv) -> Result<Self, StoreError> {
        let set =
            |value: &Option<OsString>| value.clone().filter(|v| !v.is_empty()).map(PathBuf::from);
        if let Some(home) = set(&env.amiforge_home) {
            if !home.is_absolute() {
                return Err(StoreError::RelativeHome {
                    variable: "AMIFORGE_HOME",
                    value: home,
                });
            }
            return Ok(Self::below(home));
        }
        let home = set(&env.home).filter(|p| p.is_absolute());
        let xdg = |value: &Option<OsString>, default: &str| {
            set(value)
                .filter(|p| p.is_absolute())
                .or_else(|| Some(home.as_ref()?.join(default)))
                .map(|p| p.join("amiforge"))
                .ok_or(StoreError::NoHome)
        };
        Ok(Self {
            store: xdg(&env.xdg_data_home, ".local/share")?.join("store"),
            cache: xdg(&env.xdg_cache_home, ".cache")?.join("cache"),
        })
    }

    /// Store and cache below one directory, as with `AMIFORGE_HOME`.
    #[must_use]
    pub fn below(home: impl Into<PathBuf>) -> Self {
        let home = home.into();
        Self {
            store: home.join("store"),
            cache: home.join("cache"),
        }
    }

    /// The versioned directory of downloads.
    #[must_use]
    pub fn downloads(&self) -> PathBuf {
        self.cache.join("v1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(amiforge: &str, data: &str, cache: &str, home: &str) -> HomeEnv {
        let value = |s: &str| (s != "-").then(|| OsString::from(s));
        HomeEnv {
            amiforge_home: value(amiforge),
            xdg_data_home: value(data),
            xdg_cache_home: value(cache),
            home: value(home),
        }
    }

    #[test]
    fn precedence() {
        let places = |env: &HomeEnv| {
            Home::resolve(env)
                .map(|h| (h.store.display().to_string(), h.cache.display().to_string()))
                .ok()
        };
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(
            places(&env("/a", "/d", "/c", "/h")),
            pair("/a/store", "/a/cache")
        );
        assert_eq!(
            places(&env("-", "/d", "/c", "-")),
            pair("/d/amiforge/store", "/c/amiforge/cache")
        );
        assert_eq!(
            places(&env("", "", "rel", "/h")),
            pair("/h/.local/share/amiforge/store", "/h/.cache/amiforge/cache")
        );
        assert!(matches!(
            Home::resolve(&env("rel", "-", "-", "/h")),
            Err(StoreError::RelativeHome {
                variable: "AMIFORGE_HOME",
                ..
            })
        ));
        assert!(matches!(
            Home::resolve(&env("-", "-", "/c", "-")),
            Err(StoreError::NoHome)
        ));
    }
}
