# SPDX-License-Identifier: Apache-2.0
defmodule KvApp.MixProject do
  use Mix.Project

  def project do
    [
      app: :kv_app,
      version: "0.1.0",
      elixir: "~> 1.14",
      deps: [
        {:kv_engine, path: "..", manager: :rebar3},
        # The engine names it, too: this is the one to take. In a project of your own: git: "URL".
        {:tokamak,
         path: System.get_env("TOKAMAK_PATH", "../../.."), manager: :rebar3, override: true}
      ]
    ]
  end

  def application, do: []
end
