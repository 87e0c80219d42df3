%% SPDX-License-Identifier: Apache-2.0
%% Makes an engine of a module: a NIF library built with the tokamak SDK, whose crate says
%% `tokamak::nif!("the_module")'. The library is priv/the_module.so of the application of the same name, or of
%% the one that the macro TOKAMAK_APPLICATION names, when it is defined before this file is included.
%%
%%     -module(my_engine).
%%     -include_lib("tokamak/include/tokamak_engine.hrl").

-on_load(tokamak_load/0).

-ifndef(TOKAMAK_APPLICATION).
-define(TOKAMAK_APPLICATION, ?MODULE).
-endif.

-include_lib("tokamak/include/tokamak_engine_stubs.hrl").

-spec tokamak_load() -> ok | {error, term()}.
tokamak_load() ->
    case code:priv_dir(?TOKAMAK_APPLICATION) of
        {error, bad_name} ->
            {error, {?MODULE, "its application has no priv directory", ?TOKAMAK_APPLICATION}};
        Priv ->
            erlang:load_nif(filename:join(Priv, atom_to_list(?MODULE)), 0)
    end.
