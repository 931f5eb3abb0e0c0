//! The macro that makes a section of the settings: its struct, its defaults, its reader and its documentation, from one list.

use super::value::SettingValue;
use toml::de::DeValue;

/// One key, as the documentation shows it.
#[derive(Clone, Debug)]
pub struct Key {
    /// Name within its section.
    pub name: &'static str,
    /// What must be written.
    pub kind: &'static str,
    /// Default as TOML; empty where there is none.
    pub default: String,
    /// What it means.
    pub doc: &'static str,
}

/// A section of the settings, made by `settings_section`.
pub trait Section: Default {
    /// Names of its keys.
    const NAMES: &'static [&'static str];

    /// What the section is about.
    const DOC: &'static str;

    /// Its keys with their defaults.
    fn keys() -> Vec<Key>;

    /// Puts a value over the one of `key`; `None` where there is no such key. The error says what was expected and found.
    fn assign(&mut self, key: &str, value: &DeValue<'_>) -> Option<Result<(), String>>;
}

/// Assigns, and says on failure what the type expects.
pub fn assign<T: SettingValue>(target: &mut T, value: &DeValue<'_>) -> Result<(), String> {
    target
        .assign(value)
        .map_err(|found| format!("expected {}, {found}", T::KIND))
}

/// Makes a struct of settings: `name: type = default;`, each with its doc comment.
macro_rules! settings_section {
    (
        $(#[doc = $section_doc:literal])+
        $name:ident {
            $($(#[doc = $doc:literal])+ $key:ident : $type:ty = $default:expr;)+
        }
        $(sections { $($(#[doc = $sub_doc:literal])+ $sub:ident : $sub_type:ty;)+ })?
    ) => {
        $(#[doc = $section_doc])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $key: $type,)+
            $($($(#[doc = $sub_doc])+ pub $sub: $sub_type,)+)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($key: $default,)+
                    $($($sub: <$sub_type>::default(),)+)?
                }
            }
        }

        impl $crate::settings::schema::Section for $name {
            const NAMES: &'static [&'static str] = &[$(stringify!($key)),+];
            const DOC: &'static str = concat!($($section_doc, "\n"),+);

            fn keys() -> Vec<$crate::settings::schema::Key> {
                let defaults = Self::default();
                vec![$($crate::settings::schema::Key {
                    name: stringify!($key),
                    kind: <$type as $crate::settings::value::SettingValue>::KIND,
                    default: $crate::settings::value::SettingValue::show(&defaults.$key),
                    doc: concat!($($doc, "\n"),+),
                }),+]
            }

            fn assign(&mut self, key: &str, value: &toml::de::DeValue<'_>) -> Option<Result<(), String>> {
                match key {
                    $(stringify!($key) => Some($crate::settings::schema::assign(&mut self.$key, value)),)+
                    _ => None,
                }
            }
        }

        $(impl $name {
            /// Name, documentation and keys of each section, in the order of the documentation.
            pub fn sections() -> Vec<(&'static str, &'static str, Vec<$crate::settings::schema::Key>)> {
                use $crate::settings::schema::Section;
                vec![$((stringify!($sub), <$sub_type>::DOC, <$sub_type>::keys())),+]
            }

            /// Names of the keys of a section; `None` where there is no such section.
            pub(super) fn names_of(section: &str) -> Option<&'static [&'static str]> {
                match section {
                    $(stringify!($sub) => Some(<$sub_type as $crate::settings::schema::Section>::NAMES),)+
                    _ => None,
                }
            }

            /// Puts a value over the one of `section.key`.
            pub(super) fn assign_in(
                &mut self,
                section: &str,
                key: &str,
                value: &toml::de::DeValue<'_>,
            ) -> Option<Result<(), String>> {
                match section {
                    $(stringify!($sub) => $crate::settings::schema::Section::assign(&mut self.$sub, key, value),)+
                    _ => None,
                }
            }
        })?
    };
}

pub(crate) use settings_section;
