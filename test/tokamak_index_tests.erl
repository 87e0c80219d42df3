%% SPDX-License-Identifier: Apache-2.0
%% The operation index_file, in a pool that walks a directory tree with it.
-module(tokamak_index_tests).

-include_lib("eunit/include/eunit.hrl").
-import(call_fixture, [op/1]).

index_test_() ->
    call_fixture:tests([
        fun a_tree_is_indexed/0,
        fun links_are_followed_once/0,
        fun what_cannot_be_read_is_its_error/0,
        fun a_directory_has_one_name/0,
        fun the_digests_are_those_of_crypto/0
    ]).

a_tree_is_indexed() ->
    in_directory(fun(Dir) ->
        ok = write(Dir, "a", <<"abc">>),
        ok = file:make_dir(path(Dir, "sub")),
        ok = write(Dir, "sub/empty", <<>>),
        Abc = <<"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad">>,
        Empty = <<"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855">>,
        ?assertEqual(
            #{
                Dir => {ok, directory},
                path(Dir, "a") => {ok, {file, 3, Abc}},
                path(Dir, "sub") => {ok, directory},
                path(Dir, "sub/empty") => {ok, {file, 0, Empty}}
            },
            index(Dir)
        )
    end).

links_are_followed_once() ->
    in_directory(fun(Dir) ->
        ok = write(Dir, "a", <<"abc">>),
        ok = file:make_dir(path(Dir, "sub")),
        ok = file:make_symlink("..", path(Dir, "sub/up")),
        [ok = file:make_symlink("../a", path(Dir, "sub/" ++ [Name])) || Name <- "xyz"],
        ok = file:make_symlink("self", path(Dir, "self")),
        Index = index(Dir),
        ?assertEqual([path(Dir, "a")], [Path || {Path, {ok, {file, _, _}}} <- maps:to_list(Index)]),
        ?assertMatch({ok, {link, Dir}}, maps:get(path(Dir, "sub/up"), Index)),
        ?assertMatch({error, {eloop, _}}, maps:get(path(Dir, "self"), Index))
    end).

what_cannot_be_read_is_its_error() ->
    in_directory(fun(Dir) ->
        ok = file:make_symlink("nowhere", path(Dir, "broken")),
        ?assertMatch({error, {enoent, _}}, maps:get(path(Dir, "broken"), index(Dir))),
        ?assertMatch(#{<<"/nowhere/at/all">> := {error, {enoent, _}}}, index(<<"/nowhere/at/all">>)),
        "" = os:cmd("mkfifo " ++ binary_to_list(path(Dir, "fifo"))),
        ?assertMatch({ok, other}, maps:get(path(Dir, "fifo"), index(Dir)))
    end).

a_directory_has_one_name() ->
    in_directory(fun(Dir) ->
        ok = write(Dir, "a", <<"abc">>),
        {ok, Results, _} = tokamak_pool:run({op, index_file}, [Dir, path(Dir, ""), path(Dir, ".")], #{}),
        ?assertMatch([_], [File || {File, {ok, {file, _, _}}} <- Results])
    end).

the_digests_are_those_of_crypto() ->
    in_directory(fun(Dir) ->
        Contents = [{integer_to_list(Size), rand:bytes(Size)} || Size <- [1, 1000, 262143, 262144, 262145, 1000000]],
        [ok = write(Dir, Name, Content) || {Name, Content} <- Contents],
        Index = index(Dir),
        [
            ?assertEqual({ok, {file, byte_size(Content), hexadecimal(Content)}}, maps:get(path(Dir, Name), Index))
         || {Name, Content} <- Contents
        ]
    end).

index(Path) ->
    {ok, Results, _} = tokamak_pool:run({op, index_file}, [Path], #{workers => 4}),
    pool_graphs:results(Results).

hexadecimal(Content) ->
    Digest = crypto:hash(sha256, Content),
    list_to_binary(string:lowercase(binary_to_list(binary:encode_hex(Digest)))).

%% By its true name: what leads to it by another is a link.
in_directory(Fun) ->
    tokamak_test:with_directory(fun(Dir) ->
        Real = string:trim(os:cmd("realpath " ++ Dir)),
        Fun(list_to_binary(Real))
    end).

path(Dir, Name) ->
    <<Dir/binary, "/", (list_to_binary(Name))/binary>>.

write(Dir, Name, Content) ->
    file:write_file(path(Dir, Name), Content).
