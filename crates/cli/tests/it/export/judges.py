"""What others say of exports: `judges.py cloudformation TEMPLATE…` or `judges.py cli FOLDER…`. Prints JSON.

A template is read by PyYAML and checked by cfn-lint; its properties, and the files of the command line, are
shown to botocore's validator as inputs of the calls.
"""

import json
import pathlib
import subprocess
import sys

import botocore.session
import botocore.validate
import yaml

MODEL = botocore.session.get_session().get_service_model("imagebuilder")
# CloudFormation's words that are not the API's.
OTHER = {"Version": "semanticVersion", "LaunchPermissionConfiguration": "launchPermission"}
# Properties that only CloudFormation has.
ONLY_CFN = {"DeletionSettings", "ImagePipelineExecutionSettings"}


class Loader(yaml.SafeLoader):
    """YAML 1.1 as CloudFormation reads it, with its tags."""


def function(name):
    return lambda loader, node: {name: loader.construct_scalar(node)}


for tag, name in [("!Ref", "Ref"), ("!GetAtt", "Fn::GetAtt"), ("!Sub", "Fn::Sub")]:
    Loader.add_constructor(tag, function(name))


def problems(operation, request):
    """What botocore has against the input of a call."""
    shape = MODEL.operation_model(operation).input_shape
    request = {"clientToken": "token", **request}
    report = botocore.validate.ParamValidator().validate(request, shape)
    return [f"{operation}: {report.generate_report()}"] if report.has_errors() else []


def as_input(value, shape):
    """Properties as the API spells them; a function of the template stands for a text."""
    if isinstance(value, dict) and len(value) == 1 and next(iter(value)) in ("Ref", "Fn::GetAtt", "Fn::Sub"):
        return next(iter(value.values()))
    if shape.type_name == "structure":
        out = {}
        for key, inner in value.items():
            word = OTHER.get(key, key[0].lower() + key[1:])
            if word not in shape.members and key == "SemanticVersion":
                word = "semanticVersion"
            member = shape.members.get(word)
            # An unknown one is botocore's to refuse.
            out[word] = as_input(inner, member) if member else inner
        return out
    if shape.type_name == "list":
        return [as_input(item, shape.member) for item in value]
    return value


def template(path):
    text = pathlib.Path(path).read_text(encoding="utf-8")
    document = yaml.load(text, Loader)
    found = []
    for resource in document["Resources"].values():
        operation = "Create" + resource["Type"].removeprefix("AWS::ImageBuilder::")
        properties = {k: v for k, v in resource["Properties"].items() if k not in ONLY_CFN}
        found += problems(operation, as_input(properties, MODEL.operation_model(operation).input_shape))
    return document, found


def lint(paths):
    command = [str(pathlib.Path(sys.executable).parent / "cfn-lint"), "--format", "json", "--regions", "us-east-1", "--", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 2, 4, 6, 8, 10, 12, 14):
        raise SystemExit(done.stderr)
    # Texts that look like ids in fixtures are none of an account.
    return [
        f"{m['Filename']}:{m['Location']['Start']['LineNumber']}: {m['Rule']['Id']} {m['Message']}"
        for m in json.loads(done.stdout or "[]")
    ]


def folder(path):
    found = []
    for file in sorted(pathlib.Path(path).glob("*.json")):
        call = file.stem.split("-create-", 1)[1]
        names = {xform(name): name for name in MODEL.operation_names if name.startswith("Create")}
        operation = next(names[word] for word in sorted(names, key=len, reverse=True) if call.startswith(word))
        found += problems(operation, json.loads(file.read_text(encoding="utf-8")))
    return found


def xform(name):
    """`CreateImageRecipe` → `image-recipe`."""
    words = "".join("-" + c.lower() if c.isupper() else c for c in name)
    return words.removeprefix("-create-")


def main(kind, *paths):
    if kind == "cloudformation":
        documents = [template(path) for path in paths]
        return {
            "template": documents[0][0],
            "requests": [problem for _, found in documents for problem in found],
            "lint": lint(paths),
        }
    return {"requests": [problem for path in paths for problem in folder(path)]}


print(json.dumps(main(*sys.argv[1:]), default=str))
