"""Pack a store into a zip file that ships: `python docs/study.py runs/06 data/results/sweeps/rate_rank_alpha.zip`.

The file contains records and predictions, but no adapters. The same runs give the same bytes.
"""

import io
import sys
from pathlib import Path
from zipfile import ZIP_LZMA, ZipFile, ZipInfo

from lora_lab.files import write_atomically
from lora_lab.training.runs import is_record


def study(folder: Path) -> bytes:
    """Return the zip file of a store."""
    content = io.BytesIO()
    with ZipFile(content, "w") as archive:
        for record in sorted(filter(is_record, folder.iterdir())):
            for file in (record, *sorted(record.with_suffix("").glob("*.npy"))):
                info = ZipInfo(file.relative_to(folder).as_posix())  # without a date
                info.create_system = 3  # the same on every system
                archive.writestr(info, file.read_bytes(), ZIP_LZMA)
    return content.getvalue()


if __name__ == "__main__":
    write_atomically(Path(sys.argv[2]), study(Path(sys.argv[1])))
