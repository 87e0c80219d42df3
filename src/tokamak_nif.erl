%% SPDX-License-Identifier: Apache-2.0
%% @doc Stubs of the native functions, nothing else.
%%
%% {@link tokamak_nif_loader} refuses a library of another version before it is loaded.
%% @private
-module(tokamak_nif).

-export([abi_version/0]).

-on_load(load/0).

%% Version of the interface between this module and the library. Raise it here and in
%% native/tokamak_nif/src/lib.rs together, whenever a NIF is added, removed or changed.
-define(ABI_VERSION, 1).

-spec load() -> ok | {error, term()}.
load() ->
    case tokamak_nif_loader:check(tokamak_nif, ?ABI_VERSION) of
        {ok, Path} -> erlang:load_nif(Path, 0);
        {error, _} = Error -> Error
    end.

%% @doc Returns the version of the interface the library was built for.
-spec abi_version() -> pos_integer().
abi_version() ->
    erlang:nif_error(not_loaded).
