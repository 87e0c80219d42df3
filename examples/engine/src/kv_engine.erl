%% SPDX-License-Identifier: Apache-2.0
%% @doc The engine: tokamak's functions take it in `{kv_engine, Operation}'.
-module(kv_engine).

-include_lib("tokamak/include/tokamak_engine.hrl").
