"""A function of several kinds of answers, told apart by the path."""

import json
import os

print("imported", flush=True)


def handler(event, context):
    path = event["path"]
    if path == "/event":
        return {
            "statusCode": 200,
            "headers": {"Content-Type": "application/vnd.event+json"},
            "body": json.dumps({"event": event, "arn": context.invoked_function_arn}),
        }
    if path == "/fail":
        raise ValueError("internal server error")
    if path == "/die":
        os._exit(3)
    if path == "/malformed":
        return {"statusCode": 200, "wrongValue": "value"}
    if path == "/empty":
        return {}
    if path == "/binary":
        return {"statusCode": 200, "body": "/wA=", "isBase64Encoded": True, "headers": {"Content-Type": "image/png"}}
    return {
        "statusCode": 201,
        "headers": {"X-Own": "1", "Connection": "upgrade"},
        "multiValueHeaders": {"X-Own": ["1", "2"]},
        "body": "pid %d" % os.getpid(),
    }
