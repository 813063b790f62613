r"""The canonical text of values: one form in which every warehouse writes them, so that hashes compare.

Each `Dialect.canonical_sql` computes it in its own SQL; the tests hold all of them against one model in
plain Python. The text of a value by its Iceberg type, ASCII digits throughout:

| type | text |
|---|---|
| boolean | `t` or `f` |
| int, long | decimal digits, after `-` where negative |
| decimal(p, s) | as above, then `.` and digits without trailing zeros; no `.` where none are left |
| float, double | `NaN` (all of them), `Inf`, `-Inf`, `0` (also for -0.0), else sign, m, `p`, e: see below |
| date | days since 1970-01-01 |
| time | microseconds since midnight |
| timestamp, timestamptz | microseconds since 1970-01-01 00:00:00, in UTC where it has a time zone |
| timestamp_ns, timestamptz_ns | nanoseconds since then |
| string | its characters, nothing trimmed or normalized, `\` written as `\\` and `|` as `\|` |
| uuid | lower-case hex with hyphens: 8-4-4-4-12 |
| fixed, binary | lower-case hex, two digits a byte |
| struct, list, map | see below, `\` and `|` in the whole of it written as in strings |

A finite float other than zero is m * 2^(e - 52) with 2^52 <= m < 2^53; m and e are written in decimal
digits, e after `-` where negative. A float is first taken as the double of the same value. The form is
exact: each text is one double, and each double has one text.

A **null** has no text; SQL yields NULL, and where texts are joined it is written `\N`, which no other text
is, as a `\` is otherwise followed by `\` or `|`.

A **row** is the texts of its columns, in the order of the lake's schema, joined by `|`.

The **hash** of a text is the MD5 of its UTF-8 bytes; in hex, digits 1-8, 9-16, 17-24 and 25-32 are four
numbers of 32 bits. The hash of many rows is the count of them and the four exact sums, so the order of
rows does not matter, and one of two equal rows that is lost does. Sums of 32-bit numbers fit 64 bits up
to 2^31 rows; a warehouse whose sums are not wider adds them as decimals.

**Nested values.** An item (a field of a struct, an element, a key, a value) is `-` where null, otherwise its
text, unescaped, between double quotes, with double quotes in it doubled. A struct is its fields' items in
the order of the type, joined by `,` between `(` and `)`; a list its elements' items between `[` and `]`; a
map `key:value` of items, sorted as bytes of UTF-8, between `{` and `}`. What a warehouse keeps as JSON or
VARIANT has lost the types of its leaves: there a dialect returns None, and such a column is compared by its
count and nulls alone. So is one that is held as text or cut short (`Holding.lost`).

What this does not tell apart, because not every warehouse can: 0.0 from -0.0, one NaN from another, and
the time zone in which an instant was written from another one.
"""

from __future__ import annotations

NULL_TEXT = r"\N"
SEPARATOR = "|"
LIMBS = 4
