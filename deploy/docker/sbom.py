"""What the image holds, as a CycloneDX 1.5 document: each Python distribution with version, licence and needs, and the
Debian packages that its shared libraries come from.

Read from the installed metadata and from dpkg, so it tells what is there, not what was asked for. The document has no
time and a serial number made from its content: the same image gives the same document.

    python sbom.py --site /image/opt/lablet/lib/python3.11/site-packages --root /image --version 0.1.0 > sbom.cdx.json
"""

import argparse
import json
import re
import subprocess
import sys
import uuid
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

Json = dict[str, Any]
OURS = "lablet-"
_LICENCE_CLASSIFIER = "License :: OSI Approved :: "


def canonical(name: str) -> str:
    """The one spelling of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licences(found: Distribution) -> list[Json]:
    """The SPDX expression where there is one, else the classifiers' names."""
    if expression := found.metadata.get("License-Expression"):
        return [{"expression": expression}]
    names = [
        line.removeprefix(_LICENCE_CLASSIFIER)
        for line in found.metadata.get_all("Classifier") or []
        if line.startswith(_LICENCE_CLASSIFIER)
    ]
    return [{"license": {"name": name}} for name in sorted(names)]


def python_component(found: Distribution) -> Json:
    name = canonical(found.metadata["Name"])
    reference = f"pkg:pypi/{name}@{found.version}"
    component: Json = {
        "type": "library",
        "bom-ref": reference,
        "name": name,
        "version": found.version,
        "purl": reference,
    }
    if known := licences(found):
        component["licenses"] = known
    return component


def needs(found: Distribution, references: dict[str, str]) -> list[str]:
    """References of what a distribution needs, as far as it is installed: of the optional parts only our own."""
    extras = (
        ("", *(found.metadata.get_all("Provides-Extra") or [])) if found.metadata["Name"].startswith(OURS) else ("",)
    )
    wanted = (Requirement(line) for line in found.requires or [])
    names = {
        canonical(one.name)
        for one in wanted
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras)
    }
    return sorted(references[name] for name in names if name in references)


def needed_by(roots: Iterable[str], found: Mapping[str, Distribution]) -> set[str]:
    """The roots and all that they need, at any remove."""
    names = {name: name for name in found}
    seen: set[str] = set()
    waiting = [canonical(root) for root in roots]
    while waiting:
        name = waiting.pop()
        if name in found and name not in seen:
            seen.add(name)
            waiting += needs(found[name], names)
    return seen


def debian_components(root: Path) -> list[Json]:
    """The packages that own the shared libraries below `root`; none where dpkg is not there."""
    files = sorted(
        "/" + str(path.relative_to(root))
        for path in root.rglob("*.so*")
        if path.is_file() and "site-packages" not in path.parts
    )
    names = [form for file in files for form in (file, file.removeprefix("/usr"))]
    try:
        told = subprocess.run(["dpkg-query", "--search", *names], capture_output=True, text=True, check=False)
        owners = {line.partition(": ")[0].partition(":")[0] for line in told.stdout.splitlines() if ": " in line}
        shown = subprocess.run(
            [
                "dpkg-query",
                "--show",
                "--showformat",
                "${binary:Package}\t${Version}\t${Architecture}\n",
                *sorted(owners),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return []
    components = []
    for line in sorted(set(shown.stdout.splitlines())):
        name, version, architecture = line.split("\t")
        name = name.partition(":")[0]
        reference = f"pkg:deb/debian/{name}@{version}?arch={architecture}"
        components.append(
            {"type": "library", "bom-ref": reference, "name": name, "version": version, "purl": reference}
        )
    return components


def document(site: Path, root: Path | None, version: str, only: Iterable[str] = ()) -> Json:
    """The whole document; `only` these distributions with what they need, where some are named."""
    installed = {canonical(one.metadata["Name"]): one for one in distributions(path=[str(site)])}
    wanted = needed_by(only, installed) if only else set(installed)
    found = [installed[name] for name in sorted(wanted)]
    components = [python_component(one) for one in found]
    references = {component["name"]: component["bom-ref"] for component in components}
    main = f"pkg:oci/lablet@{version}"
    debian = debian_components(root) if root is not None else []
    dependencies: list[Json] = [
        {"ref": references[canonical(one.metadata["Name"])], "dependsOn": needs(one, references)} for one in found
    ]
    dependencies += [{"ref": component["bom-ref"]} for component in debian]
    dependencies.append({"ref": main, "dependsOn": sorted(_refs([*components, *debian]))})
    content: Json = {
        "metadata": {
            "component": {"type": "container", "bom-ref": main, "name": "lablet", "version": version, "purl": main}
        },
        "components": [*components, *debian],
        "dependencies": dependencies,
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(content, sort_keys=True))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
    } | content


def _refs(components: Iterable[Json]) -> Iterable[str]:
    return (component["bom-ref"] for component in components)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--site", type=Path, required=True, help="the site-packages folder")
    parser.add_argument("--root", type=Path, help="the image's root, for the Debian packages of its libraries")
    parser.add_argument("--version", required=True)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these distributions and what they need")
    options = parser.parse_args(arguments)
    json.dump(document(options.site, options.root, options.version, options.only), sys.stdout, indent=1)
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
