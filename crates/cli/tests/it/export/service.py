"""A stand-in for Image Builder and STS: `service.py LOG PORT`. Keeps what it is sent, and lists what it made.

Writes the number of its port into PORT, and every call that makes something into LOG.
"""

import http.server
import json
import pathlib
import sys

LOG, PORT = map(pathlib.Path, sys.argv[1:])
ACCOUNT = "arn:aws:imagebuilder:eu-central-1:123456789012"
# Of each call: the type in the ARN, the ARN's place in the answer, the list call and its list.
CALLS = {
    "CreateComponent": ("component", "componentBuildVersionArn", "ListComponents", "componentVersionList"),
    "CreateImageRecipe": ("image-recipe", "imageRecipeArn", "ListImageRecipes", "imageRecipeSummaryList"),
    "CreateContainerRecipe": ("container-recipe", "containerRecipeArn", "ListContainerRecipes", "containerRecipeSummaryList"),
    "CreateInfrastructureConfiguration": (
        "infrastructure-configuration",
        "infrastructureConfigurationArn",
        "ListInfrastructureConfigurations",
        "infrastructureConfigurationSummaryList",
    ),
    "CreateDistributionConfiguration": (
        "distribution-configuration",
        "distributionConfigurationArn",
        "ListDistributionConfigurations",
        "distributionConfigurationSummaryList",
    ),
    "CreateImagePipeline": ("image-pipeline", "imagePipelineArn", "ListImagePipelines", "imagePipelineList"),
    "CreateWorkflow": ("workflow/test", "workflowBuildVersionArn", "ListWorkflows", "workflowVersionList"),
    "CreateLifecyclePolicy": ("lifecycle-policy", "lifecyclePolicyArn", "ListLifecyclePolicies", "lifecyclePolicySummaryList"),
}
made = {list_call: [] for _, _, list_call, _ in CALLS.values()}
log = []

IDENTITY = """<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>
<Arn>arn:aws:iam::123456789012:user/x</Arn><UserId>x</UserId><Account>123456789012</Account>
</GetCallerIdentityResult></GetCallerIdentityResponse>"""


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        call = self.path.strip("/").split("?")[0]
        if not call:
            return self.send(200, IDENTITY, "text/xml")
        given = json.loads(body or b"{}")
        if call in CALLS:
            kind, key, list_call, _ = CALLS[call]
            version = given.get("semanticVersion", "").replace("x", str(len(log)))
            tail = f"/{version}" if version else ""
            arn = f"{ACCOUNT}:{kind}/{given['name'].lower().replace(' ', '-')}{tail}"
            made[list_call].append({"name": given["name"], "version": version, "arn": arn})
            log.append({"call": call, "input": given})
            LOG.write_text(json.dumps(log))
            return self.send(200, json.dumps({key: arn}))
        for _, _, list_call, name in CALLS.values():
            if call == list_call:
                return self.send(200, json.dumps({name: made[list_call]}))
        return self.send(404, "{}")

    do_GET = do_POST = do_PUT = answer

    def send(self, code, text, kind="application/json"):
        data = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
PORT.write_text(f"{server.server_port}\n")
server.serve_forever()
