# A stream, the lease table of one group that reads it, and the two roles that a service of
# millstream needs: one that sends, one that consumes.
#
#   terraform apply -var stream=car-raw-events -var group=notifications
#
# Nothing here is needed for the SDK to work: it creates streams on request, and the lease table when
# the first member joins. This is for those who create nothing at run time; their settings have
# `leases = { create = false }`.

terraform {
  required_version = ">= 1.3"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "stream" {
  description = "The stream's name."
  type        = string

  validation {
    condition     = can(regex("^[a-zA-Z0-9._-]{1,128}$", var.stream))
    error_message = "Use 1 to 128 of A-Z a-z 0-9 . _ -"
  }
}

variable "group" {
  description = "The group's name, which is also that of its lease table."
  type        = string

  validation {
    condition     = can(regex("^[a-zA-Z0-9._-]{3,255}$", var.group))
    error_message = "Use 3 to 255 of A-Z a-z 0-9 . _ -"
  }
}

variable "shards" {
  description = "How many shards the stream has. 0: Kinesis decides by the load."
  type        = number
  default     = 4
}

variable "retention_hours" {
  description = "How long records are kept, and so how long a group may stand still without a loss."
  type        = number
  default     = 24
}

variable "encrypt" {
  description = "Whether the stream is encrypted with a key of its own."
  type        = bool
  default     = false
}

variable "fan_out" {
  description = "Whether the group reads by enhanced fan-out (`consumer.retrieval = \"fan-out\"`)."
  type        = bool
  default     = false
}

variable "services" {
  description = "The services of AWS that may take the roles, for the programs that run on them."
  type        = list(string)
  default     = ["ecs-tasks.amazonaws.com"]
}

resource "aws_kinesis_stream" "this" {
  name             = var.stream
  shard_count      = var.shards > 0 ? var.shards : null
  retention_period = var.retention_hours
  encryption_type  = var.encrypt ? "KMS" : "NONE"
  kms_key_id       = var.encrypt ? aws_kms_key.this[0].arn : null

  stream_mode_details {
    stream_mode = var.shards > 0 ? "PROVISIONED" : "ON_DEMAND"
  }

  # Whoever reshards the running stream changes the number of shards.
  lifecycle {
    ignore_changes = [shard_count]
  }
}

resource "aws_kms_key" "this" {
  count = var.encrypt ? 1 : 0

  description         = "Records of the stream ${var.stream}"
  enable_key_rotation = true
}

# The KCL's own table: its members may be Java's. A row is a lease, and each is written every few
# seconds, so that capacity on demand is what fits.
resource "aws_dynamodb_table" "leases" {
  name         = var.group
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "leaseKey"

  attribute {
    name = "leaseKey"
    type = "S"
  }
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = var.services
    }
  }
}

data "aws_iam_policy_document" "produce" {
  statement {
    sid = "Send"

    actions = [
      "kinesis:DescribeStreamSummary",
      "kinesis:ListShards",
      "kinesis:PutRecords",
    ]

    resources = [aws_kinesis_stream.this.arn]
  }

  dynamic "statement" {
    for_each = aws_kms_key.this

    content {
      sid       = "Encrypt"
      actions   = ["kms:GenerateDataKey"]
      resources = [statement.value.arn]
    }
  }
}

data "aws_iam_policy_document" "consume" {
  statement {
    sid = "Read"

    actions = [
      "kinesis:DescribeStreamSummary",
      "kinesis:GetRecords",
      "kinesis:GetShardIterator",
      "kinesis:ListShards",
    ]

    resources = [aws_kinesis_stream.this.arn]
  }

  dynamic "statement" {
    for_each = var.fan_out ? [1] : []

    content {
      sid       = "Register"
      actions   = ["kinesis:RegisterStreamConsumer"]
      resources = [aws_kinesis_stream.this.arn]
    }
  }

  dynamic "statement" {
    for_each = var.fan_out ? [1] : []

    content {
      sid = "Subscribe"

      actions = [
        "kinesis:DescribeStreamConsumer",
        "kinesis:SubscribeToShard",
      ]

      resources = ["${aws_kinesis_stream.this.arn}/consumer/*"]
    }
  }

  statement {
    sid = "Lease"

    actions = [
      "dynamodb:DeleteItem",
      "dynamodb:DescribeTable",
      "dynamodb:GetItem",
      "dynamodb:PutItem",
      "dynamodb:Scan",
      "dynamodb:UpdateItem",
    ]

    resources = [aws_dynamodb_table.leases.arn]
  }

  # Where Java workers of the KCL 3.0 to 3.4 keep what they have agreed on, if there ever were any.
  statement {
    sid       = "Java"
    actions   = ["dynamodb:GetItem"]
    resources = ["${aws_dynamodb_table.leases.arn}-CoordinatorState"]
  }

  dynamic "statement" {
    for_each = aws_kms_key.this

    content {
      sid       = "Decrypt"
      actions   = ["kms:Decrypt"]
      resources = [statement.value.arn]
    }
  }
}

resource "aws_iam_role" "producer" {
  name               = "${var.stream}-producer"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role" "consumer" {
  name               = "${var.group}-consumer"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy" "producer" {
  name   = "send"
  role   = aws_iam_role.producer.id
  policy = data.aws_iam_policy_document.produce.json
}

resource "aws_iam_role_policy" "consumer" {
  name   = "consume"
  role   = aws_iam_role.consumer.id
  policy = data.aws_iam_policy_document.consume.json
}

output "stream_arn" {
  description = "The stream."
  value       = aws_kinesis_stream.this.arn
}

output "lease_table" {
  description = "The table for `leases.table`."
  value       = aws_dynamodb_table.leases.name
}

output "producer_role_arn" {
  description = "The role of what sends."
  value       = aws_iam_role.producer.arn
}

output "consumer_role_arn" {
  description = "The role of what consumes."
  value       = aws_iam_role.consumer.arn
}

output "kms_key_arn" {
  description = "The key of the stream, if it has one of its own."
  value       = one(aws_kms_key.this[*].arn)
}
