"""The models of schema.py as pydantic-core takes them. Made from these by a test, which also compares.

To import pydantic and to build the models takes longer than to read a thousand manifests; this does neither.
"""

from __future__ import annotations

from typing import Any

from provisioner.manifest import normalizers
from provisioner.manifest.declared import Activation
from provisioner.model import BillingMode, Operator, Production, UserType

PYDANTIC_CORE = "2.50.5"
"""Whose form this is; with any other version the models themselves are used."""

CLIENT: Any = {
    "type": "model",
    "cls": normalizers.Record,
    "schema": {
        "type": "model-fields",
        "fields": {
            "company": {
                "type": "model-field",
                "schema": {
                    "type": "model",
                    "cls": normalizers.Record,
                    "schema": {
                        "type": "model-fields",
                        "fields": {
                            "number": {
                                "type": "model-field",
                                "schema": {
                                    "type": "str",
                                    "pattern": "^[0-9A-Za-z](?:[0-9A-Za-z._-]{0,18}[0-9A-Za-z])?$",
                                },
                            },
                            "name": {
                                "type": "model-field",
                                "schema": {
                                    "type": "function-after",
                                    "function": {
                                        "type": "no-info",
                                        "function": normalizers.NAME.validate,
                                    },
                                    "schema": {
                                        "type": "str",
                                    },
                                },
                            },
                            "siren": {
                                "type": "model-field",
                                "schema": {
                                    "type": "default",
                                    "schema": {
                                        "type": "function-after",
                                        "function": {
                                            "type": "no-info",
                                            "function": normalizers.SIREN.validate,
                                        },
                                        "schema": {
                                            "type": "str",
                                        },
                                    },
                                    "default": None,
                                },
                            },
                        },
                    },
                    "custom_init": False,
                    "root_model": False,
                    "config": {
                        "extra_fields_behavior": "forbid",
                    },
                },
            },
            "billing": {
                "type": "model-field",
                "schema": {
                    "type": "default",
                    "schema": {
                        "type": "model",
                        "cls": normalizers.Record,
                        "schema": {
                            "type": "model-fields",
                            "fields": {
                                "mode": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "enum",
                                        "cls": BillingMode,
                                        "members": [BillingMode.CLIENT, BillingMode.FIRM],
                                        "sub_type": "str",
                                    },
                                },
                                "offer": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "function-after",
                                        "function": {
                                            "type": "no-info",
                                            "function": normalizers.NAME.validate,
                                        },
                                        "schema": {
                                            "type": "str",
                                        },
                                    },
                                },
                            },
                        },
                        "custom_init": False,
                        "root_model": False,
                        "config": {
                            "extra_fields_behavior": "forbid",
                        },
                    },
                    "default": None,
                },
            },
            "users": {
                "type": "model-field",
                "schema": {
                    "type": "default",
                    "schema": {
                        "type": "tuple",
                        "items_schema": [{
                            "type": "model",
                            "cls": normalizers.Record,
                            "schema": {
                                "type": "model-fields",
                                "fields": {
                                    "type": {
                                        "type": "model-field",
                                        "schema": {
                                            "type": "default",
                                            "schema": {
                                                "type": "enum",
                                                "cls": UserType,
                                                "members": [UserType.ADMINISTRATOR, UserType.STANDARD],
                                                "sub_type": "str",
                                            },
                                            "default": None,
                                        },
                                    },
                                    "production": {
                                        "type": "model-field",
                                        "schema": {
                                            "type": "default",
                                            "schema": {
                                                "type": "enum",
                                                "cls": Production,
                                                "members": [Production.FULL, Production.CONSULTATION],
                                                "sub_type": "str",
                                            },
                                            "default": None,
                                        },
                                    },
                                    "apps": {
                                        "type": "model-field",
                                        "schema": {
                                            "type": "default",
                                            "schema": {
                                                "type": "tuple",
                                                "items_schema": [{
                                                    "type": "function-after",
                                                    "function": {
                                                        "type": "no-info",
                                                        "function": normalizers.NAME.validate,
                                                    },
                                                    "schema": {
                                                        "type": "str",
                                                    },
                                                }],
                                                "variadic_item_index": 0,
                                            },
                                            "default": None,
                                        },
                                    },
                                    "companies": {
                                        "type": "model-field",
                                        "schema": {
                                            "type": "default",
                                            "schema": {
                                                "type": "tuple",
                                                "items_schema": [{
                                                    "type": "str",
                                                    "pattern": "^[0-9A-Za-z](?:[0-9A-Za-z._-]{0,18}[0-9A-Za-z])?$",
                                                }],
                                                "variadic_item_index": 0,
                                            },
                                            "default": None,
                                        },
                                    },
                                    "removal": {
                                        "type": "model-field",
                                        "schema": {
                                            "type": "default",
                                            "schema": {
                                                "type": "literal",
                                                "expected": ["month_end", "immediate"],
                                            },
                                            "default": None,
                                        },
                                    },
                                    "activation": {
                                        "type": "model-field",
                                        "schema": {
                                            "type": "default",
                                            "schema": {
                                                "type": "enum",
                                                "cls": Activation,
                                                "members": [Activation.IMMEDIATE, Activation.LATER],
                                                "sub_type": "str",
                                            },
                                            "default": None,
                                        },
                                    },
                                    "welcome_email": {
                                        "type": "model-field",
                                        "schema": {
                                            "type": "default",
                                            "schema": {
                                                "type": "bool",
                                                "strict": True,
                                            },
                                            "default": None,
                                        },
                                    },
                                    "language": {
                                        "type": "model-field",
                                        "schema": {
                                            "type": "default",
                                            "schema": {
                                                "type": "literal",
                                                "expected": ["fr", "en"],
                                            },
                                            "default": None,
                                        },
                                    },
                                    "email": {
                                        "type": "model-field",
                                        "schema": {
                                            "type": "function-after",
                                            "function": {
                                                "type": "no-info",
                                                "function": normalizers.EMAIL.validate,
                                            },
                                            "schema": {
                                                "type": "str",
                                            },
                                        },
                                    },
                                    "previous_email": {
                                        "type": "model-field",
                                        "schema": {
                                            "type": "default",
                                            "schema": {
                                                "type": "function-after",
                                                "function": {
                                                    "type": "no-info",
                                                    "function": normalizers.EMAIL.validate,
                                                },
                                                "schema": {
                                                    "type": "str",
                                                },
                                            },
                                            "default": None,
                                        },
                                    },
                                    "first_name": {
                                        "type": "model-field",
                                        "schema": {
                                            "type": "function-after",
                                            "function": {
                                                "type": "no-info",
                                                "function": normalizers.NAME.validate,
                                            },
                                            "schema": {
                                                "type": "str",
                                            },
                                        },
                                    },
                                    "last_name": {
                                        "type": "model-field",
                                        "schema": {
                                            "type": "function-after",
                                            "function": {
                                                "type": "no-info",
                                                "function": normalizers.NAME.validate,
                                            },
                                            "schema": {
                                                "type": "str",
                                            },
                                        },
                                    },
                                    "phone": {
                                        "type": "model-field",
                                        "schema": {
                                            "type": "default",
                                            "schema": {
                                                "type": "nullable",
                                                "schema": {
                                                    "type": "function-after",
                                                    "function": {
                                                        "type": "no-info",
                                                        "function": normalizers.PHONE.validate,
                                                    },
                                                    "schema": {
                                                        "type": "str",
                                                    },
                                                },
                                            },
                                            "default": None,
                                        },
                                    },
                                    "profile": {
                                        "type": "model-field",
                                        "schema": {
                                            "type": "default",
                                            "schema": {
                                                "type": "function-after",
                                                "function": {
                                                    "type": "no-info",
                                                    "function": normalizers.NAME.validate,
                                                },
                                                "schema": {
                                                    "type": "str",
                                                },
                                            },
                                            "default": None,
                                        },
                                    },
                                    "status": {
                                        "type": "model-field",
                                        "schema": {
                                            "type": "default",
                                            "schema": {
                                                "type": "literal",
                                                "expected": ["open", "closed"],
                                            },
                                            "default": None,
                                        },
                                    },
                                },
                            },
                            "custom_init": False,
                            "root_model": False,
                            "config": {
                                "extra_fields_behavior": "forbid",
                            },
                        }],
                        "variadic_item_index": 0,
                    },
                    "default": (),
                },
            },
        },
    },
    "custom_init": False,
    "root_model": False,
    "config": {
        "extra_fields_behavior": "forbid",
    },
}

PROVISIONER: Any = {
    "type": "model",
    "cls": normalizers.Record,
    "schema": {
        "type": "model-fields",
        "fields": {
            "version": {
                "type": "model-field",
                "schema": {
                    "type": "literal",
                    "expected": ["1"],
                },
            },
            "firm": {
                "type": "model-field",
                "schema": {
                    "type": "model",
                    "cls": normalizers.Record,
                    "schema": {
                        "type": "model-fields",
                        "fields": {
                            "name": {
                                "type": "model-field",
                                "schema": {
                                    "type": "function-after",
                                    "function": {
                                        "type": "no-info",
                                        "function": normalizers.NAME.validate,
                                    },
                                    "schema": {
                                        "type": "str",
                                    },
                                },
                            },
                            "language": {
                                "type": "model-field",
                                "schema": {
                                    "type": "default",
                                    "schema": {
                                        "type": "literal",
                                        "expected": ["fr", "en"],
                                    },
                                    "default": "fr",
                                },
                            },
                            "email_domains": {
                                "type": "model-field",
                                "schema": {
                                    "type": "default",
                                    "schema": {
                                        "type": "tuple",
                                        "items_schema": [{
                                            "type": "function-after",
                                            "function": {
                                                "type": "no-info",
                                                "function": normalizers.DOMAIN.validate,
                                            },
                                            "schema": {
                                                "type": "str",
                                            },
                                        }],
                                        "variadic_item_index": 0,
                                    },
                                    "default": (),
                                },
                            },
                            "staff": {
                                "type": "model-field",
                                "schema": {
                                    "type": "default",
                                    "schema": {
                                        "type": "tuple",
                                        "items_schema": [{
                                            "type": "function-after",
                                            "function": {
                                                "type": "no-info",
                                                "function": normalizers.EMAIL.validate,
                                            },
                                            "schema": {
                                                "type": "str",
                                            },
                                        }],
                                        "variadic_item_index": 0,
                                    },
                                    "default": (),
                                },
                            },
                        },
                    },
                    "custom_init": False,
                    "root_model": False,
                    "config": {
                        "extra_fields_behavior": "forbid",
                    },
                },
            },
            "manifests": {
                "type": "model-field",
                "schema": {
                    "type": "default",
                    "schema": {
                        "type": "tuple",
                        "items_schema": [{
                            "type": "str",
                        }],
                        "variadic_item_index": 0,
                    },
                    "default": ('clients/',),
                },
            },
            "catalogue": {
                "type": "model-field",
                "schema": {
                    "type": "default",
                    "schema": {
                        "type": "model",
                        "cls": normalizers.Record,
                        "schema": {
                            "type": "model-fields",
                            "fields": {
                                "offers": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "tuple",
                                            "items_schema": [{
                                                "type": "function-after",
                                                "function": {
                                                    "type": "no-info",
                                                    "function": normalizers.NAME.validate,
                                                },
                                                "schema": {
                                                    "type": "str",
                                                },
                                            }],
                                            "variadic_item_index": 0,
                                        },
                                        "default": (),
                                    },
                                },
                                "apps": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "tuple",
                                            "items_schema": [{
                                                "type": "function-after",
                                                "function": {
                                                    "type": "no-info",
                                                    "function": normalizers.OTHER_APP.validate,
                                                },
                                                "schema": {
                                                    "type": "str",
                                                },
                                            }],
                                            "variadic_item_index": 0,
                                        },
                                        "default": (),
                                    },
                                },
                                "profiles": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "dict",
                                            "keys_schema": {
                                                "type": "str",
                                            },
                                            "values_schema": {
                                                "type": "model",
                                                "cls": normalizers.Record,
                                                "schema": {
                                                    "type": "model-fields",
                                                    "fields": {
                                                        "type": {
                                                            "type": "model-field",
                                                            "schema": {
                                                                "type": "default",
                                                                "schema": {
                                                                    "type": "enum",
                                                                    "cls": UserType,
                                                                    "members": [UserType.ADMINISTRATOR, UserType.STANDARD],
                                                                    "sub_type": "str",
                                                                },
                                                                "default": None,
                                                            },
                                                        },
                                                        "production": {
                                                            "type": "model-field",
                                                            "schema": {
                                                                "type": "default",
                                                                "schema": {
                                                                    "type": "enum",
                                                                    "cls": Production,
                                                                    "members": [Production.FULL, Production.CONSULTATION],
                                                                    "sub_type": "str",
                                                                },
                                                                "default": None,
                                                            },
                                                        },
                                                        "apps": {
                                                            "type": "model-field",
                                                            "schema": {
                                                                "type": "default",
                                                                "schema": {
                                                                    "type": "tuple",
                                                                    "items_schema": [{
                                                                        "type": "function-after",
                                                                        "function": {
                                                                            "type": "no-info",
                                                                            "function": normalizers.NAME.validate,
                                                                        },
                                                                        "schema": {
                                                                            "type": "str",
                                                                        },
                                                                    }],
                                                                    "variadic_item_index": 0,
                                                                },
                                                                "default": None,
                                                            },
                                                        },
                                                        "companies": {
                                                            "type": "model-field",
                                                            "schema": {
                                                                "type": "default",
                                                                "schema": {
                                                                    "type": "tuple",
                                                                    "items_schema": [{
                                                                        "type": "str",
                                                                        "pattern": "^[0-9A-Za-z](?:[0-9A-Za-z._-]{0,18}[0-9A-Za-z])?$",
                                                                    }],
                                                                    "variadic_item_index": 0,
                                                                },
                                                                "default": None,
                                                            },
                                                        },
                                                        "removal": {
                                                            "type": "model-field",
                                                            "schema": {
                                                                "type": "default",
                                                                "schema": {
                                                                    "type": "literal",
                                                                    "expected": ["month_end", "immediate"],
                                                                },
                                                                "default": None,
                                                            },
                                                        },
                                                        "activation": {
                                                            "type": "model-field",
                                                            "schema": {
                                                                "type": "default",
                                                                "schema": {
                                                                    "type": "enum",
                                                                    "cls": Activation,
                                                                    "members": [Activation.IMMEDIATE, Activation.LATER],
                                                                    "sub_type": "str",
                                                                },
                                                                "default": None,
                                                            },
                                                        },
                                                        "welcome_email": {
                                                            "type": "model-field",
                                                            "schema": {
                                                                "type": "default",
                                                                "schema": {
                                                                    "type": "bool",
                                                                    "strict": True,
                                                                },
                                                                "default": None,
                                                            },
                                                        },
                                                        "language": {
                                                            "type": "model-field",
                                                            "schema": {
                                                                "type": "default",
                                                                "schema": {
                                                                    "type": "literal",
                                                                    "expected": ["fr", "en"],
                                                                },
                                                                "default": None,
                                                            },
                                                        },
                                                    },
                                                },
                                                "custom_init": False,
                                                "root_model": False,
                                                "config": {
                                                    "extra_fields_behavior": "forbid",
                                                },
                                            },
                                        },
                                        "default_factory": dict,
                                        "default_factory_takes_data": False,
                                    },
                                },
                            },
                        },
                        "custom_init": False,
                        "root_model": False,
                        "config": {
                            "extra_fields_behavior": "forbid",
                        },
                    },
                    "default": {},
                    "validate_default": True,
                },
            },
            "defaults": {
                "type": "model-field",
                "schema": {
                    "type": "default",
                    "schema": {
                        "type": "model",
                        "cls": normalizers.Record,
                        "schema": {
                            "type": "model-fields",
                            "fields": {
                                "type": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "enum",
                                            "cls": UserType,
                                            "members": [UserType.ADMINISTRATOR, UserType.STANDARD],
                                            "sub_type": "str",
                                        },
                                        "default": None,
                                    },
                                },
                                "production": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "enum",
                                            "cls": Production,
                                            "members": [Production.FULL, Production.CONSULTATION],
                                            "sub_type": "str",
                                        },
                                        "default": None,
                                    },
                                },
                                "apps": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "tuple",
                                            "items_schema": [{
                                                "type": "function-after",
                                                "function": {
                                                    "type": "no-info",
                                                    "function": normalizers.NAME.validate,
                                                },
                                                "schema": {
                                                    "type": "str",
                                                },
                                            }],
                                            "variadic_item_index": 0,
                                        },
                                        "default": None,
                                    },
                                },
                                "companies": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "tuple",
                                            "items_schema": [{
                                                "type": "str",
                                                "pattern": "^[0-9A-Za-z](?:[0-9A-Za-z._-]{0,18}[0-9A-Za-z])?$",
                                            }],
                                            "variadic_item_index": 0,
                                        },
                                        "default": None,
                                    },
                                },
                                "removal": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "literal",
                                            "expected": ["month_end", "immediate"],
                                        },
                                        "default": None,
                                    },
                                },
                                "activation": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "enum",
                                            "cls": Activation,
                                            "members": [Activation.IMMEDIATE, Activation.LATER],
                                            "sub_type": "str",
                                        },
                                        "default": None,
                                    },
                                },
                                "welcome_email": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "bool",
                                            "strict": True,
                                        },
                                        "default": None,
                                    },
                                },
                                "language": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "literal",
                                            "expected": ["fr", "en"],
                                        },
                                        "default": None,
                                    },
                                },
                            },
                        },
                        "custom_init": False,
                        "root_model": False,
                        "config": {
                            "extra_fields_behavior": "forbid",
                        },
                    },
                    "default": {},
                    "validate_default": True,
                },
            },
            "portal": {
                "type": "model-field",
                "schema": {
                    "type": "default",
                    "schema": {
                        "type": "model",
                        "cls": normalizers.Record,
                        "schema": {
                            "type": "model-fields",
                            "fields": {
                                "secret_env": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "str",
                                            "pattern": "^[A-Z_][A-Z0-9_]{0,63}$",
                                        },
                                        "default": "",
                                    },
                                },
                                "secret_file": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "str",
                                        },
                                        "default": "",
                                    },
                                },
                                "url": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "function-after",
                                            "function": {
                                                "type": "no-info",
                                                "function": normalizers.PORTAL.validate,
                                            },
                                            "schema": {
                                                "type": "str",
                                            },
                                        },
                                        "default": "sqlite:///portal.db",
                                    },
                                },
                                "operator": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "enum",
                                            "cls": Operator,
                                            "members": [Operator.ADMINISTRATOR, Operator.PARTNER, Operator.CUSTOMER_MANAGER, Operator.COLLABORATOR],
                                            "sub_type": "str",
                                        },
                                        "default": Operator.COLLABORATOR,
                                    },
                                },
                                "public_url": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "function-after",
                                            "function": {
                                                "type": "no-info",
                                                "function": normalizers.WEB_ADDRESS.validate,
                                            },
                                            "schema": {
                                                "type": "str",
                                            },
                                        },
                                        "default": "",
                                    },
                                },
                                "client_id": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "str",
                                        },
                                        "default": "",
                                    },
                                },
                                "ca_file": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "str",
                                        },
                                        "default": "",
                                    },
                                },
                                "proxy": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "function-after",
                                            "function": {
                                                "type": "no-info",
                                                "function": normalizers.PROXY.validate,
                                            },
                                            "schema": {
                                                "type": "str",
                                            },
                                        },
                                        "default": "",
                                    },
                                },
                                "paths": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "dict",
                                            "keys_schema": {
                                                "type": "str",
                                            },
                                            "values_schema": {
                                                "type": "str",
                                            },
                                        },
                                        "default_factory": dict,
                                        "default_factory_takes_data": False,
                                    },
                                },
                                "scim": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "dict",
                                            "keys_schema": {
                                                "type": "str",
                                            },
                                            "values_schema": {
                                                "type": "str",
                                            },
                                        },
                                        "default_factory": dict,
                                        "default_factory_takes_data": False,
                                    },
                                },
                            },
                        },
                        "custom_init": False,
                        "root_model": False,
                        "config": {
                            "extra_fields_behavior": "forbid",
                        },
                    },
                    "default": {},
                    "validate_default": True,
                },
            },
            "ledger": {
                "type": "model-field",
                "schema": {
                    "type": "default",
                    "schema": {
                        "type": "model",
                        "cls": normalizers.Record,
                        "schema": {
                            "type": "model-fields",
                            "fields": {
                                "secret_env": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "str",
                                            "pattern": "^[A-Z_][A-Z0-9_]{0,63}$",
                                        },
                                        "default": "",
                                    },
                                },
                                "secret_file": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "str",
                                        },
                                        "default": "",
                                    },
                                },
                                "url": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "function-after",
                                            "function": {
                                                "type": "no-info",
                                                "function": normalizers.DATABASE.validate,
                                            },
                                            "schema": {
                                                "type": "str",
                                            },
                                        },
                                        "default": "sqlite:///ledger.db",
                                    },
                                },
                            },
                        },
                        "custom_init": False,
                        "root_model": False,
                        "config": {
                            "extra_fields_behavior": "forbid",
                        },
                    },
                    "default": {},
                    "validate_default": True,
                },
            },
            "mail": {
                "type": "model-field",
                "schema": {
                    "type": "model",
                    "cls": normalizers.Record,
                    "schema": {
                        "type": "model-fields",
                        "fields": {
                            "sender": {
                                "type": "model-field",
                                "schema": {
                                    "type": "function-after",
                                    "function": {
                                        "type": "no-info",
                                        "function": normalizers.MAILBOX.validate,
                                    },
                                    "schema": {
                                        "type": "str",
                                    },
                                },
                                "validation_alias": "from",
                            },
                            "transport": {
                                "type": "model-field",
                                "schema": {
                                    "type": "default",
                                    "schema": {
                                        "type": "function-after",
                                        "function": {
                                            "type": "no-info",
                                            "function": normalizers.TRANSPORT.validate,
                                        },
                                        "schema": {
                                            "type": "str",
                                        },
                                    },
                                    "default": "maildir:outbox",
                                },
                            },
                            "reply_to": {
                                "type": "model-field",
                                "schema": {
                                    "type": "default",
                                    "schema": {
                                        "type": "function-after",
                                        "function": {
                                            "type": "no-info",
                                            "function": normalizers.MAILBOX.validate,
                                        },
                                        "schema": {
                                            "type": "str",
                                        },
                                    },
                                    "default": "",
                                },
                            },
                            "welcome": {
                                "type": "model-field",
                                "schema": {
                                    "type": "default",
                                    "schema": {
                                        "type": "literal",
                                        "expected": ["ours", "portal", "none"],
                                    },
                                    "default": "ours",
                                },
                            },
                            "on_unknown": {
                                "type": "model-field",
                                "schema": {
                                    "type": "default",
                                    "schema": {
                                        "type": "literal",
                                        "expected": ["hold", "resend"],
                                    },
                                    "default": "hold",
                                },
                            },
                            "username": {
                                "type": "model-field",
                                "schema": {
                                    "type": "default",
                                    "schema": {
                                        "type": "str",
                                    },
                                    "default": "",
                                },
                            },
                            "password_env": {
                                "type": "model-field",
                                "schema": {
                                    "type": "default",
                                    "schema": {
                                        "type": "str",
                                        "pattern": "^[A-Z_][A-Z0-9_]{0,63}$",
                                    },
                                    "default": "",
                                },
                            },
                            "password_file": {
                                "type": "model-field",
                                "schema": {
                                    "type": "default",
                                    "schema": {
                                        "type": "str",
                                    },
                                    "default": "",
                                },
                            },
                            "tls": {
                                "type": "model-field",
                                "schema": {
                                    "type": "default",
                                    "schema": {
                                        "type": "literal",
                                        "expected": ["required", "none"],
                                    },
                                    "default": "required",
                                },
                            },
                            "ca_file": {
                                "type": "model-field",
                                "schema": {
                                    "type": "default",
                                    "schema": {
                                        "type": "str",
                                    },
                                    "default": "",
                                },
                            },
                            "connections": {
                                "type": "model-field",
                                "schema": {
                                    "type": "default",
                                    "schema": {
                                        "type": "function-after",
                                        "function": {
                                            "type": "no-info",
                                            "function": normalizers.CONNECTIONS.validate,
                                        },
                                        "schema": {
                                            "type": "str",
                                        },
                                    },
                                    "default": 16,
                                },
                            },
                            "timeout": {
                                "type": "model-field",
                                "schema": {
                                    "type": "default",
                                    "schema": {
                                        "type": "function-after",
                                        "function": {
                                            "type": "no-info",
                                            "function": normalizers.SECONDS.validate,
                                        },
                                        "schema": {
                                            "type": "str",
                                        },
                                    },
                                    "default": 60,
                                },
                            },
                        },
                    },
                    "custom_init": False,
                    "root_model": False,
                    "config": {
                        "extra_fields_behavior": "forbid",
                    },
                },
            },
            "safety": {
                "type": "model-field",
                "schema": {
                    "type": "default",
                    "schema": {
                        "type": "model",
                        "cls": normalizers.Record,
                        "schema": {
                            "type": "model-fields",
                            "fields": {
                                "absent": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "literal",
                                            "expected": ["report", "close"],
                                        },
                                        "default": "report",
                                    },
                                },
                                "self_service": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "literal",
                                            "expected": ["keep", "restore"],
                                        },
                                        "default": "keep",
                                    },
                                },
                                "generic_addresses": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "literal",
                                            "expected": ["warn", "error"],
                                        },
                                        "default": "warn",
                                    },
                                },
                                "max_closures": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "function-after",
                                            "function": {
                                                "type": "no-info",
                                                "function": normalizers.CLOSURES.validate,
                                            },
                                            "schema": {
                                                "type": "str",
                                            },
                                        },
                                        "default": 5,
                                    },
                                },
                                "max_closures_percent": {
                                    "type": "model-field",
                                    "schema": {
                                        "type": "default",
                                        "schema": {
                                            "type": "function-after",
                                            "function": {
                                                "type": "no-info",
                                                "function": normalizers.PERCENT.validate,
                                            },
                                            "schema": {
                                                "type": "str",
                                            },
                                        },
                                        "default": 10,
                                    },
                                },
                            },
                        },
                        "custom_init": False,
                        "root_model": False,
                        "config": {
                            "extra_fields_behavior": "forbid",
                        },
                    },
                    "default": {},
                    "validate_default": True,
                },
            },
        },
    },
    "custom_init": False,
    "root_model": False,
    "config": {
        "extra_fields_behavior": "forbid",
    },
}
