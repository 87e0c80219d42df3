%% SPDX-License-Identifier: Apache-2.0
%% A library that does not fit its Erlang module is refused before it is loaded.
-module(tokamak_nif_loader_tests).

-include_lib("eunit/include/eunit.hrl").

the_built_library_fits_its_module_test() ->
    ?assertEqual({module, tokamak_nif}, code:ensure_loaded(tokamak_nif)).

a_missing_library_says_how_to_build_it_test() ->
    tokamak_test:with_directory(fun(Dir) ->
        {error, {tokamak_nif, Text}} = tokamak_nif_loader:check(Dir, lib, 1),
        ?assertMatch({match, _}, re:run(Text, "lib[.]so is missing.*rebar3 compile.*cargo"))
    end).

a_stale_library_says_both_versions_test() ->
    with_content(<<"\0tokamak_abi_version=1\0">>, fun(Dir) ->
        {error, {tokamak_nif, Text}} = tokamak_nif_loader:check(Dir, lib, 12),
        ?assertMatch({match, _}, re:run(Text, "is stale: it has version 1, needed is 12"))
    end).

a_version_is_not_taken_for_its_first_digits_test() ->
    with_content(<<"\0tokamak_abi_version=12\0">>, fun(Dir) ->
        ?assertEqual({ok, filename:join(Dir, lib)}, tokamak_nif_loader:check(Dir, lib, 12)),
        ?assertMatch({error, _}, tokamak_nif_loader:check(Dir, lib, 1))
    end).

a_file_without_a_version_is_refused_test() ->
    [with_content(Content, fun(Dir) ->
         {error, {tokamak_nif, Text}} = tokamak_nif_loader:check(Dir, lib, 1),
         ?assertMatch({match, _}, re:run(Text, Reason))
     end)
     || {Content, Reason} <- [{<<>>, "not a library of tokamak"},
                              {<<"\177ELF">>, "not a library of tokamak"},
                              {<<"tokamak_abi_version=">>, "stale"}]].

an_unreadable_library_says_why_test() ->
    tokamak_test:with_directory(fun(Dir) ->
        ok = file:make_dir(library(Dir)),
        {error, {tokamak_nif, Text}} = tokamak_nif_loader:check(Dir, lib, 1),
        ok = file:del_dir(library(Dir)),
        ?assertMatch({match, _}, re:run(Text, "cannot be read: illegal operation on a directory"))
    end).

with_content(Content, Test) ->
    tokamak_test:with_directory(fun(Dir) ->
        ok = file:write_file(library(Dir), Content),
        Test(Dir)
    end).

library(Dir) ->
    filename:join(Dir, "lib.so").
