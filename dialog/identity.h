/* identity: is this string of digits really a card, an identity number, an address?  Checksums and ranges that keep rules for personal data from
 * firing on every long number.  Each check reads the span a pattern found, skips separators (space . - _ / : and brackets) and
 * judges the rest. */
#ifndef DUET_IDENTITY_H
#define DUET_IDENTITY_H

#include "models/base.h"

/* luhn   payment cards: 12 to 19 digits, ISO/IEC 7812-1 checksum, not all the same digit
 * cn-id  Chinese resident identity number: 17 digits and a check character, GB 11643-1999; region, date and checksum
 * iban   ISO 13616: country, length of that country where known, mod 97 = 1
 * us-ssn nine digits, no area 000, 666, 9xx, no group 00, no serial 0000
 * ipv4   four numbers up to 255, and not the loopback, unspecified or broadcast network
 */
enum { IDENTITY_NONE = -1 };
int identity_of_name(str name); /* IDENTITY_NONE when there is no such check */
const char *identity_names(void); /* "luhn, cn-id, …" for messages */
int identity_holds(int check, str span);

#endif
