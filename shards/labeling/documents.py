"""XML files of other people: read whole into elements, without entities and document types."""

from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from ..outside.files import read_file

_DEEPEST = 64


def read_xml(path: Path) -> Element:
    """Read an XML file.

    Raises ValueError where it is none, nests deeply, or declares a document type: entities could
    unpack to more than the memory holds, or name other files.
    """
    builder, depth = TreeBuilder(), [0]
    parser = expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise ValueError(f"{path} declares a document type, which no labelling tool writes")

    def start(tag: str, attributes: dict[str, str]) -> None:
        depth[0] += 1
        if depth[0] > _DEEPEST:
            raise ValueError(f"{path} is nested more than {_DEEPEST} deep: export it again")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        depth[0] -= 1
        builder.end(tag)

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(read_file(path), True)
    except expat.ExpatError as error:
        raise ValueError(f"{path} is no XML ({error}): export it again") from None
    return builder.close()
