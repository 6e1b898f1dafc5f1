"""Reads an OCI image layout with Python's own tar reader and prints the files that its layers make.

usage: oci.py LAYOUT [FOLDER]   with FOLDER: of an unpacked image, in the same form, without what unpacking as
                                an ordinary user cannot keep
"""

import gzip, hashlib, json, os, stat, sys, tarfile


def blob(layout, descriptor):
    algorithm, name = descriptor["digest"].split(":")
    data = open(os.path.join(layout, "blobs", algorithm, name), "rb").read()
    assert len(data) == descriptor["size"], "a size is wrong"
    assert hashlib.sha256(data).hexdigest() == name, "a digest is wrong"
    return data


def layers(layout):
    assert json.load(open(os.path.join(layout, "oci-layout"))) == {"imageLayoutVersion": "1.0.0"}
    index = json.load(open(os.path.join(layout, "index.json")))
    [entry] = index["manifests"]
    manifest = json.loads(blob(layout, entry))
    config = json.loads(blob(layout, manifest["config"]))
    filled = [h for h in config["history"] if not h.get("empty_layer")]
    assert len(filled) == len(manifest["layers"]) == len(config["rootfs"]["diff_ids"])
    for descriptor, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"]):
        assert descriptor["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
        data = gzip.decompress(blob(layout, descriptor))
        assert "sha256:" + hashlib.sha256(data).hexdigest() == diff_id, "a diff id is wrong"
        yield data


def apply(files, data):
    import io
    below = dict(files)
    archive = tarfile.open(fileobj=io.BytesIO(data))
    for member in archive:
        path = member.name.removeprefix("./").strip("/")
        path = "" if path == "." else path
        folder, _, name = path.rpartition("/")
        gone = None
        if name == ".wh..wh..opq":
            gone = [p for p in below if p.startswith(folder + "/")]
        elif name.startswith(".wh."):
            target = (folder + "/" if folder else "") + name[4:]
            gone = [p for p in below if p == target or p.startswith(target + "/")]
        if gone is not None:
            for p in gone:
                if files.get(p) is below[p]:
                    del files[p]
            continue
        if member.islnk():
            files[path] = files[member.linkname.removeprefix("./")]
            continue
        if not member.isdir():
            for p in [p for p in files if p.startswith(path + "/")]:
                del files[p]
        xattrs = {k[13:]: v.encode("utf-8", "surrogateescape").hex()
                  for k, v in member.pax_headers.items() if k.startswith("SCHILY.xattr.")}
        content = archive.extractfile(member).read() if member.isreg() else b""
        files[path] = {
            "type": "f" if member.isreg() else "d" if member.isdir() else "l" if member.issym() else "other",
            "mode": member.mode, "uid": member.uid, "gid": member.gid, "time": float(member.mtime),
            "link": member.linkname if member.issym() else "",
            "sum": hashlib.sha256(content).hexdigest()[:16] if member.isreg() else "", "xattrs": xattrs,
        }


def line(path, f, names, full):
    mode = "-" if f["type"] == "l" else oct(f["mode"])
    text = f"{path!r} {f['type']} {mode} {f['link']!r} {f['sum']} {sorted(names)}"
    return text + (f" {f['uid']}:{f['gid']} {f['xattrs']}" if full else "")


def main():
    files = {}
    if len(sys.argv) == 2:
        for data in layers(sys.argv[1]):
            apply(files, data)
    else:
        root = sys.argv[2]
        inodes = {}
        for folder, dirs, names in os.walk(root):
            for name in ["."] * (folder == root) + dirs + names:
                full = os.path.normpath(os.path.join(folder, name))
                path = os.path.relpath(full, root)
                s = os.lstat(full)
                kind = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l"}.get(stat.S_IFMT(s.st_mode), "other")
                f = inodes.setdefault(s.st_ino, {
                    "type": kind, "mode": stat.S_IMODE(s.st_mode),
                    "link": os.readlink(full) if kind == "l" else "",
                    "sum": hashlib.sha256(open(full, "rb").read()).hexdigest()[:16] if kind == "f" else ""})
                files["" if path == "." else path] = f
    names = {}
    for path, f in files.items():
        names.setdefault(id(f), []).append(path)
    full = len(sys.argv) == 2 and not os.environ.get("SHORT")
    for path in sorted(files):
        own = names[id(files[path])]
        print(line(path, files[path], own if len(own) > 1 else [], full))


main()
