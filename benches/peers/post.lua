-- Posts the same JSON document again and again.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [[@BODY@]]
