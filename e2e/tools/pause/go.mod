module rimward.dev/e2e/tools/pause

go 1.25
