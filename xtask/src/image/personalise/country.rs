//! The countries that radio rules can be of.
//!
//! In: what was given as a country. Out: nothing, or why it is none. Guarantees: a kernel that gets a code that passes has heard of the country, and not of a
//! typing error, with which it would fall back to the rules that hold everywhere.

use anyhow::{Result, bail};

/// All officially assigned codes of ISO 3166-1 alpha-2, as `iso3166.tab` of the time zone database of 2023 and later has them.
const ASSIGNED: &str = "\
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA CC CD CF CG CH \
    CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN \
    GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI \
    LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM \
    PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD \
    TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

/// Refuses what is no assigned code, in whatever case.
pub(super) fn check(code: &str) -> Result<()> {
    let wanted = code.to_ascii_uppercase();
    if !ASSIGNED.split(' ').any(|assigned| assigned == wanted) {
        bail!(
            "--wifi-country {code} is no country: two letters of ISO 3166, such as DE (that of the United Kingdom is GB)"
        );
    }
    Ok(())
}
