"""titles.py: words in the titles of tables, and what columns of such titles usually are."""

from __future__ import annotations

import re

RESERVED = ("File_ID", "Split", "Subject")
KEPT = ("Fold", "Session", "Speaker", "Language", "Gender", "Age")
"""Columns that are kept with each clip under these names, as with ``--meta``."""
PARTS = ("Start", "End", "Side")
"""Columns for the part of its file that a clip is."""
KNOWN = (*RESERVED, "Path", *KEPT, "Text", *PARTS)
"""All columns that are never taken for labels unless a person names them as such."""


def plain(title: str) -> str:
    """A title without its case, spaces and punctuation."""
    return re.sub(r"[\W_]+", "", title.casefold())


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FILE_TITLES = _words(
    """
    file filename filepath fileid filenames clip clipname clipid video videoname videoid videofile
    videoclip dateiname datei dateien dateipfad pfad path aufnahme aufnahmen recording recordingid media
    name id sample sampleid stimulus stimulusid utteranceid fichier archivo nomfichier nombrearchivo
    """
)
"""Plain titles of columns that name the clips, the likelier first."""
TIME_TITLES = {
    "Start": _words(
        "starttime startsec startsecs startseconds starts startms tstart begin begintime beginsec onset "
        "onsettime onsetsec startzeit anfang beginn clipstart segmentstart"
    ),
    "End": _words(
        "endtime endsec endsecs endseconds ends endms tend stop stoptime stopsec offset offsettime offsetsec "
        "endzeit ende clipend segmentend"
    ),
}
"""Plain titles of columns that may say when clips begin and end, which are read where they are called so."""
SPLIT_TITLES = _words("partition set subset fold part teil teilmenge aufteilung splits usage dataset datensatz")
PEOPLE = _words(
    """
    who whose wer subject subjekt participant proband probandin probanden person personen vp vpn
    versuchsperson teilnehmer teilnehmerin speaker sprecher sprecherin actor actress schauspieler
    schauspielerin sujet sujeto patient patientin child infant user pp ppn respondent volunteer individual
    firstname lastname surname vorname nachname
    """
)
"""Who is seen, in plain titles; with more such as `ID` or `name` about them (`Participant No.`)."""
METADATA = frozenset(
    _words(
        """
        age ages alter edad alder leeftijd year years jahr jahre jahrgang month monat day tag date datum
        gender sex geschlecht session sitzung episode season staffel scene szene block trial trials durchgang
        run round runde take index idx nr no num number nummer id line row zeile fps width height breite hoehe
        höhe frame frames duration dauer length laenge länge start end ende begin beginn onset offset time
        times zeit timestamp second seconds sekunde sekunden sec ms rater raters annotator annotators count
        anzahl weight gewicht bmi iq edu education bildung group gruppe condition bedingung order reihenfolge
        phone telefon plz zip fold wave welle size bytes bitrate version income einkommen handedness
        händigkeit unnamed confidence certainty agreement reliability quality kappa votes konfidenz
        übereinstimmung qualität stimmen sd std stdev stddev sem variance varianz
        """
    )
)
"""Words in titles of columns that hold numbers and are no emotions."""


def is_time(title: str, name: str) -> bool:
    """Whether a column of this title may be ``Start`` or ``End``."""
    return plain(title) in TIME_TITLES.get(name, ())


def tells_people(title: str) -> bool:
    """Whether a column of this title seems to tell who is seen."""
    about = r"(id|nr|no|num|number|name|code|s)?"
    return bool(re.fullmatch(rf"(id|code|name)?(of)?({'|'.join(PEOPLE)}){about}", plain(title)))


def tells_names(title: str) -> bool:
    """Whether a column of this title names clips or people, and only its cells show which."""
    return plain(title) in ("id", "name")
